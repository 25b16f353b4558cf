// Reading the voxels of NIfTI files. See data/nifti.h; the header is in data/nifti_header.cpp.
#include "data/nifti.h"

#include "core/error.h"
#include "core/file_io.h"
#include "data/file_tree.h"
#include "data/gzip.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>

namespace ermoe {
namespace {

constexpr size_t longest_header = 540;
constexpr size_t piece_bytes = size_t{1} << 20;
// What may stand behind the voxels. It is read, as only then a checksum is verified, and a bomb stops here.
constexpr uint64_t max_trailing_bytes = uint64_t{256} << 20;

std::string read_head(GzipReader& reader) {
  std::string head(longest_header, '\0');
  head.resize(reader.read(head.data(), head.size()));
  return head;
}

/// A stream whose first bytes were read already.
class Resumed {
 public:
  Resumed(std::string_view head, GzipReader& reader) : head_(head), reader_(reader) {}

  void read(char* to, size_t bytes) {
    const size_t n = std::min(bytes, head_.size());
    std::memcpy(to, head_.data(), n);
    head_.remove_prefix(n);
    if (n < bytes) reader_.read_exactly(to + n, bytes - n);
  }

 private:
  std::string_view head_;
  GzipReader& reader_;
};

void skip(Resumed& stream, uint64_t bytes) {
  std::string rest(static_cast<size_t>(std::min<uint64_t>(bytes, piece_bytes)), '\0');
  for (; bytes > 0; bytes -= std::min<uint64_t>(bytes, piece_bytes))
    stream.read(rest.data(), static_cast<size_t>(std::min<uint64_t>(bytes, piece_bytes)));
}

template <typename T>
void convert(const char* from, size_t count, const NiftiHeader& header, float* to) {
  const bool swapped = (header.order == ByteOrder::big) != (std::endian::native == std::endian::big);
  for (size_t i = 0; i < count; ++i) {
    char raw[sizeof(T)];
    std::memcpy(raw, from + i * sizeof(T), sizeof(T));
    if (swapped) std::reverse(raw, raw + sizeof(T));
    T stored;
    std::memcpy(&stored, raw, sizeof(T));
    // In double, so that large whole numbers and small slopes are rounded once.
    to[i] =
        static_cast<float>(header.scaled() ? static_cast<double>(stored) * header.slope + header.intercept : static_cast<double>(stored));
  }
}

using Convert = void (*)(const char* from, size_t count, const NiftiHeader& header, float* to);

Convert converter(VoxelType type) {
  switch (type) {
    case VoxelType::u8: return convert<uint8_t>;
    case VoxelType::i8: return convert<int8_t>;
    case VoxelType::u16: return convert<uint16_t>;
    case VoxelType::i16: return convert<int16_t>;
    case VoxelType::u32: return convert<uint32_t>;
    case VoxelType::i32: return convert<int32_t>;
    case VoxelType::u64: return convert<uint64_t>;
    case VoxelType::i64: return convert<int64_t>;
    case VoxelType::f32: return convert<float>;
    default: return convert<double>;
  }
}

/// Reads to the end, which verifies a gzip stream.
void drain(GzipReader& reader) {
  std::string rest(piece_bytes, '\0');
  const uint64_t from = reader.position();
  while (reader.read(rest.data(), rest.size()) > 0)
    check_input(reader.position() - from <= max_trailing_bytes, "{}: more than {} bytes follow its voxels", reader.name(),
                max_trailing_bytes);
}

/// The voxels, of a stream that begins with `head` and goes on in `reader`.
Volume read_voxels(const NiftiHeader& header, std::string_view head, GzipReader& reader) {
  check_input(header.frames == 1, "{}: a series of {} frames; one volume is wanted", reader.name(), header.frames);
  const size_t size = voxel_bytes(header.type);
  const auto voxels = static_cast<uint64_t>(header.grid.voxels());
  const uint64_t needed = header.data_offset + voxels * size;
  check_input(needed <= reader.most_content(), "{}: its NIfTI header claims {} x {} x {} voxels, more than the file holds", reader.name(),
              header.grid.size[0], header.grid.size[1], header.grid.size[2]);
  Resumed stream(head, reader);
  skip(stream, header.data_offset);
  Volume volume{header.grid, {}};
  volume.values.resize(voxels);
  std::string piece(std::min<uint64_t>(voxels * size, piece_bytes), '\0');
  for (size_t done = 0; done < voxels;) {
    const size_t count = std::min<size_t>(voxels - done, piece_bytes / size);
    stream.read(piece.data(), count * size);
    converter(header.type)(piece.data(), count, header, volume.values.data() + done);
    done += count;
  }
  drain(reader);
  return volume;
}

bool exists(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

/// `path` with its .hdr or .img replaced by `ending`, with or without .gz: what there is of the two. Empty where neither is.
std::string partner(const std::string& path, const std::string& ending) {
  std::string stem = path;
  if (lower(stem).ends_with(".gz")) stem.resize(stem.size() - 3);
  stem.resize(stem.size() - 4);
  for (const std::string& name : {stem + ending, stem + ending + ".gz"})
    if (exists(name)) return name;
  return {};
}

/// Whether a path is named as the file `ending` (".hdr", ".img") of a pair.
bool is_part(const std::string& path, std::string_view ending) {
  const std::string name = lower(base_name(path));
  return is_volume_name(path) && (name.ends_with(ending) || name.ends_with(std::string(ending) + ".gz"));
}

/// The file that holds the header of the volume at `path`.
std::string header_path(const std::string& path) {
  if (!is_part(path, ".img")) return path;
  const std::string header = partner(path, ".hdr");
  check_input(!header.empty(), "{}: the .hdr file that belongs to it is missing", path);
  return header;
}

}  // namespace

NiftiHeader read_nifti_header(const std::string& path) {
  GzipReader reader(header_path(path));
  return parse_nifti_header(read_head(reader), reader.name());
}

Volume read_nifti(const std::string& path) {
  GzipReader reader(header_path(path));
  const std::string head = read_head(reader);
  const NiftiHeader header = parse_nifti_header(head, reader.name());
  if (!header.pair) return read_voxels(header, head, reader);
  drain(reader);
  const std::string data = is_part(reader.name(), ".hdr") ? partner(reader.name(), ".img") : "";
  check_input(!data.empty(), "{}: a header alone; the .img file that belongs to it is missing", reader.name());
  GzipReader voxels(data);
  return read_voxels(header, {}, voxels);
}

Volume read_nifti(std::string_view bytes, const std::string& name) {
  GzipReader reader(bytes, name);
  const std::string head = read_head(reader);
  const NiftiHeader header = parse_nifti_header(head, name);
  check_input(!header.pair, "{}: the header of a pair of files, which are read from a folder alone", name);
  return read_voxels(header, head, reader);
}

void require_sound(const Volume& volume, const std::string& name) {
  const auto is_bad = [](float v) { return !std::isfinite(v); };
  const auto bad = std::ranges::count_if(volume.values, is_bad);
  check_input(bad == 0, "{}: {} of {} voxels are not finite numbers", name, bad, volume.values.size());
  const auto [low, high] = std::ranges::minmax_element(volume.values);
  check_input(low != high && *low < *high, "{}: every voxel has the same value, {}", name, volume.values.empty() ? 0 : *low);
}

}  // namespace ermoe
