// The tar format: 512-byte headers, each followed by the file's content padded to 512 bytes, and zeros at the end. POSIX.1-1988
// (ustar), POSIX.1-2001 (PAX) and the GNU extensions. See data/tar.h.
#include "data/tar.h"

#include "core/error.h"
#include "data/gzip.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>

namespace ermoe {
namespace {

constexpr uint64_t block = 512;
constexpr uint64_t max_extension_bytes = uint64_t{1} << 20;  // of a long name or a PAX record

using Block = std::array<char, block>;

/// A field of a header: where it stands and how long it is.
struct Field {
  size_t offset, length;
};
constexpr Field name_field{0, 100}, size_field{124, 12}, checksum_field{148, 8}, magic_field{257, 6}, prefix_field{345, 155};
constexpr size_t type_offset = 156;

std::string_view view(const Block& header, Field field) { return {header.data() + field.offset, field.length}; }

/// A text field ends at its first zero byte, or is full.
std::string_view text(std::string_view field) { return field.substr(0, field.find('\0')); }

/// A number in octal digits, or in base 256 with the first bit set (GNU); none where it is neither or above 2^63.
std::optional<uint64_t> number(std::string_view field) {
  uint64_t value = 0;
  if (static_cast<unsigned char>(field[0]) & 0x80) {
    for (size_t i = 0; i < field.size(); ++i) {
      const unsigned char byte = static_cast<unsigned char>(field[i]) & (i == 0 ? 0x7f : 0xff);
      if (value >> 55) return std::nullopt;
      value = value << 8 | byte;
    }
    return value;
  }
  field = text(field);
  field.remove_prefix(std::min(field.find_first_not_of(' '), field.size()));
  field = field.substr(0, field.find(' '));
  const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value, 8);
  if (field.empty()) return 0;
  if (error != std::errc() || end != field.data() + field.size() || value >> 62) return std::nullopt;
  return value;
}

/// The sum of the header's bytes, its checksum field taken as spaces. Old programs summed signed characters.
bool checksum_matches(const Block& header) {
  const auto stored = number(view(header, checksum_field));
  if (!stored) return false;
  int64_t as_unsigned = 0, as_signed = 0;
  for (size_t i = 0; i < block; ++i) {
    const bool in_field = i >= checksum_field.offset && i < checksum_field.offset + checksum_field.length;
    const char c = in_field ? ' ' : header[i];
    as_unsigned += static_cast<unsigned char>(c);
    as_signed += static_cast<signed char>(c);
  }
  const auto expected = static_cast<int64_t>(*stored);
  return expected == as_unsigned || expected == as_signed;
}

std::string header_name(const Block& header) {
  const std::string_view name = text(view(header, name_field));
  // Only POSIX headers have a prefix; GNU puts times there and ends its magic with a space.
  const bool posix = view(header, magic_field) == std::string_view("ustar\0", 6);
  const std::string_view prefix = posix ? text(view(header, prefix_field)) : "";
  return prefix.empty() ? std::string(name) : fmt::format("{}/{}", prefix, name);
}

std::string without_leading_dot(std::string name) {
  size_t start = 0;
  while (name.compare(start, 2, "./") == 0) start += 2;
  return name.substr(start);
}

}  // namespace

/// One walk over the archive's headers that fills a reader's index.
class TarIndexer {
 public:
  explicit TarIndexer(TarReader& tar) : tar_(tar) {}

  void run() {
    check_input(tar_.size() > 0, "{}: the file is empty", tar_.path());
    while (read_header()) {
      check_input(checksum_matches(header_), "{}: {}", tar_.path(),
                  offset_ == 0 ? "is not a tar archive" : fmt::format("the tar header at byte {} has a wrong checksum", offset_));
      take_member();
    }
    check_rest_is_zero();
  }

 private:
  /// False at the zero block that ends the archive.
  bool read_header() {
    check_input(tar_.size() - offset_ >= block, "{}: the tar archive is cut off: it ends at byte {} without an end mark", tar_.path(),
                tar_.size());
    tar_.read_at(offset_, header_.data(), block);
    return std::ranges::any_of(header_, [](char c) { return c != 0; });
  }

  void take_member() {
    const char type = header_[type_offset];
    const std::optional<uint64_t> stored = number(view(header_, size_field));
    check_input(stored.has_value(), "{}: the tar header at byte {} has a damaged size", tar_.path(), offset_);
    const bool extension = type == 'x' || type == 'g' || type == 'L' || type == 'K';
    uint64_t size = !extension && pax_size_ ? *pax_size_ : *stored;
    // Links, devices and folders have no content, whatever their size says.
    if (type >= '1' && type <= '6') size = 0;
    const uint64_t start = offset_ + block;
    check_input(size <= tar_.size() - start, "{}: the tar archive is cut off: its member at byte {} has {} bytes, only {} are left",
                tar_.path(), offset_, size, tar_.size() - start);
    if (extension) {
      take_extension(type, start, size);
    } else {
      check_input(type != 'S' && type != 'M' && !sparse_,
                  "{}: the tar member at byte {} is sparse or goes on in another volume, which is not read", tar_.path(), offset_);
      if (type == '0' || type == '\0' || type == '7') add_file(start, size);
      long_name_.reset();
      pax_size_.reset();
      sparse_ = false;
    }
    const uint64_t padded = (size + block - 1) / block * block;
    check_input(padded <= tar_.size() - start, "{}: the tar archive is cut off: it ends at byte {} without an end mark", tar_.path(),
                tar_.size());
    offset_ = start + padded;
  }

  void add_file(uint64_t start, uint64_t size) {
    std::string name = without_leading_dot(long_name_ ? *long_name_ : header_name(header_));
    // Tar programs older than ustar marked folders by a slash alone.
    if (name.ends_with('/')) return;
    check_input(!name.empty(), "{}: the tar member at byte {} has no name", tar_.path(), offset_);
    tar_.entries_.push_back({std::move(name), start, size});
  }

  /// A member that describes the next one: its long name (GNU) or records of its properties (PAX).
  void take_extension(char type, uint64_t start, uint64_t size) {
    if (type == 'K' || type == 'g') return;
    check_input(size <= max_extension_bytes, "{}: the tar extension at byte {} has {} bytes, above the limit of {}", tar_.path(), offset_,
                size, max_extension_bytes);
    std::string content(size, '\0');
    tar_.read_at(start, content.data(), size);
    if (type == 'L')
      long_name_ = text(content);
    else
      take_pax_records(content);
  }

  /// Records are `length key=value\n`, where length counts all of it.
  void take_pax_records(std::string_view records) {
    while (!records.empty()) {
      size_t length = 0;
      const auto [end, error] = std::from_chars(records.data(), records.data() + records.size(), length);
      const size_t digits = static_cast<size_t>(end - records.data());
      const bool sound =
          error == std::errc() && length > digits + 1 && length <= records.size() && records[digits] == ' ' && records[length - 1] == '\n';
      check_input(sound, "{}: the PAX records at byte {} are damaged", tar_.path(), offset_);
      const std::string_view record = records.substr(digits + 1, length - digits - 2);
      const size_t equals = record.find('=');
      check_input(equals != std::string_view::npos, "{}: the PAX records at byte {} are damaged", tar_.path(), offset_);
      take_pax_record(record.substr(0, equals), record.substr(equals + 1));
      records.remove_prefix(length);
    }
  }

  void take_pax_record(std::string_view key, std::string_view value) {
    if (key == "path") {
      long_name_ = text(value);
    } else if (key == "size") {
      uint64_t size = 0;
      const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), size);
      check_input(error == std::errc() && end == value.data() + value.size(), "{}: the PAX records at byte {} have a damaged size",
                  tar_.path(), offset_);
      pax_size_ = size;
    } else if (key.starts_with("GNU.sparse.")) {
      sparse_ = true;
    }
  }

  /// Zeros up to the end: a hole that a broken download left in the middle is not taken for the end mark.
  void check_rest_is_zero() {
    std::string piece;
    for (uint64_t at = offset_; at < tar_.size(); at += piece.size()) {
      piece.resize(static_cast<size_t>(std::min<uint64_t>(tar_.size() - at, 256 << 10)));
      tar_.read_at(at, piece.data(), piece.size());
      check_input(piece.find_first_not_of('\0') == std::string::npos, "{}: the tar archive is damaged: data follow the zeros at byte {}",
                  tar_.path(), offset_);
    }
  }

  TarReader& tar_;
  uint64_t offset_ = 0;
  Block header_{};
  std::optional<std::string> long_name_;  // of the next member, by an extension
  std::optional<uint64_t> pax_size_;
  bool sparse_ = false;
};

bool is_tar(std::string_view head) {
  if (head.size() < block || head.substr(0, block).find_first_not_of('\0') == std::string_view::npos) return false;
  Block header;
  std::memcpy(header.data(), head.data(), block);
  return checksum_matches(header);
}

TarReader::TarReader(const std::string& path, TarLimits limits) : path_(path), limits_(limits) {
  GzipReader source(path);
  if (source.compressed())
    content_ = source.read_rest(limits.max_inflated_bytes);
  else
    file_.emplace(path);
  TarIndexer(*this).run();
  index_names();
}

void TarReader::read_at(uint64_t offset, void* to, size_t bytes) const {
  if (file_) {
    file_->read(offset, to, bytes);
    return;
  }
  check(offset <= content_.size() && bytes <= content_.size() - offset, "[tar] {}: read of {} bytes at {} beyond {}", path_, bytes, offset,
        content_.size());
  std::memcpy(to, content_.data() + offset, bytes);
}

void TarReader::index_names() {
  std::vector<size_t> order(entries_.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  const auto name_of = [this](size_t i) -> const std::string& { return entries_[i].name; };
  std::ranges::stable_sort(order, {}, name_of);
  std::vector<bool> superseded(entries_.size());
  for (size_t first = 0, last; first < order.size(); first = last) {
    for (last = first + 1; last < order.size() && name_of(order[last]) == name_of(order[first]); ++last) superseded[order[last]] = true;
    entries_[order[first]] = entries_[order[last - 1]];
  }
  size_t kept = 0;
  for (size_t i = 0; i < entries_.size(); ++i)
    if (!superseded[i]) {
      if (kept != i) entries_[kept] = std::move(entries_[i]);
      ++kept;
    }
  entries_.resize(kept);
  by_name_.resize(kept);
  for (size_t i = 0; i < kept; ++i) by_name_[i] = i;
  std::ranges::sort(by_name_, {}, name_of);
}

const TarEntry* TarReader::find(std::string_view name) const {
  const auto found = std::ranges::lower_bound(by_name_, name, {}, [this](size_t i) { return std::string_view(entries_[i].name); });
  return found != by_name_.end() && entries_[*found].name == name ? &entries_[*found] : nullptr;
}

std::string TarReader::read(const TarEntry& entry) const {
  check_input(entry.size <= limits_.max_entry_bytes, "{}: has {} bytes, above the limit of {}", label(entry), entry.size,
              limits_.max_entry_bytes);
  std::string content(entry.size, '\0');
  read_at(entry.offset, content.data(), content.size());
  return content;
}

std::string TarReader::label(const TarEntry& entry) const { return fmt::format("{}: {}", path_, printable(entry.name)); }

}  // namespace ermoe
