// The table of formats and how each is checked. A new format is one line in `probes` with its two functions.
#include "data/probe.h"

#include "core/error.h"
#include "core/json.h"
#include "core/safetensors.h"
#include "data/decode.h"
#include "data/gzip.h"
#include "data/nifti.h"
#include "data/tar.h"
#include "data/volume_grid.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace ermoe {
namespace {

constexpr size_t head_bytes = 4096;
constexpr size_t max_image_bytes = size_t{1} << 30;
constexpr size_t max_text_bytes = size_t{1} << 30;
// Beyond this an inflated stream is a bomb rather than data.
constexpr uint64_t max_inflated_bytes = uint64_t{64} << 30;

/// What the table's tests see of a file.
struct Content {
  std::string path;
  std::string head;         // the first bytes, inflated where the file is gzip
  bool compressed = false;  // whether it is
  uint64_t size = 0;        // of the file itself
};

std::string plural(uint64_t count, std::string_view one, std::string_view many) {
  return fmt::format("{} {}", count, count == 1 ? one : many);
}

uint8_t byte(std::string_view bytes, size_t at) { return static_cast<uint8_t>(bytes[at]); }

/// Reads what is left of the stream and returns its total size, which verifies gzip checksums.
uint64_t drain(GzipReader& reader) {
  std::string piece(size_t{1} << 20, '\0');
  while (reader.read(piece.data(), piece.size()) > 0)
    check_input(reader.position() <= max_inflated_bytes, "{}: inflates to more than {} bytes", reader.name(), max_inflated_bytes);
  return reader.position();
}

bool is_image(const Content& c) { return !c.compressed && image_format(bytes_of(c.head)) != ImageFormat::unknown; }

FileReport describe_image(const Content& c) {
  const std::string bytes = read_file(c.path, max_image_bytes);
  const Image image = decode_image(bytes_of(bytes), c.path);
  const std::string format(image_format_name(image_format(bytes_of(bytes))));
  return {format, fmt::format("{} image, {} x {}", format, image.width, image.height)};
}

bool is_tar_archive(const Content& c) { return is_tar(c.head); }

FileReport describe_tar(const Content& c) {
  const TarReader tar(c.path);
  uint64_t bytes = 0;
  for (const TarEntry& e : tar.entries()) bytes += e.size;
  return {"tar", fmt::format("tar archive, {} of {} bytes", plural(tar.entries().size(), "file", "files"), bytes)};
}

bool is_safetensors(const Content& c) {
  if (c.compressed || c.head.size() < 10 || c.head[8] != '{') return false;
  uint64_t header = 0;
  for (size_t i = 0; i < 8; ++i) header |= uint64_t{byte(c.head, i)} << (8 * i);
  return header < (uint64_t{1} << 32);
}

FileReport describe_safetensors(const Content& c) {
  const SafetensorsFile file = SafetensorsFile::open(c.path);
  uint64_t bytes = 0;
  for (const auto& [name, stored] : file.tensors()) bytes += stored.bytes;
  return {"safetensors", fmt::format("safetensors, {} of {} bytes", plural(file.tensors().size(), "tensor", "tensors"), bytes)};
}

bool is_nifti_file(const Content& c) { return is_nifti(c.head); }

FileReport describe_nifti(const Content& c) {
  const NiftiHeader header = read_nifti_header(c.path);
  const auto& size = read_nifti(c.path).grid.size;
  const std::string format = fmt::format("NIfTI-{}", header.version);
  return {format, fmt::format("{} volume, {} x {} x {}, axes {}", format, size[0], size[1], size[2], orientation_text(header.grid))};
}

/// Bytes of one element by IDX type code; 0 where there is no such type.
uint64_t idx_element_size(uint8_t code) {
  switch (code) {
    case 0x08:
    case 0x09: return 1;
    case 0x0b: return 2;
    case 0x0c:
    case 0x0d: return 4;
    case 0x0e: return 8;
    default: return 0;
  }
}

bool is_idx(const Content& c) {
  return c.head.size() >= 8 && c.head.starts_with(std::string_view("\0\0", 2)) && idx_element_size(byte(c.head, 2)) > 0 &&
         byte(c.head, 3) >= 1 && byte(c.head, 3) <= 4;
}

FileReport describe_idx(const Content& c) {
  const size_t axes = byte(c.head, 3), header = 4 + 4 * axes;
  check_input(c.head.size() >= header, "{}: the IDX file ends within its header", c.path);
  uint64_t elements = 1;
  std::string shape;
  for (size_t a = 0; a < axes; ++a) {
    uint64_t length = 0;
    for (size_t i = 0; i < 4; ++i) length = length << 8 | byte(c.head, 4 + 4 * a + i);
    shape += fmt::format("{}{}", a == 0 ? "" : " x ", length);
    check_input(elements == 0 || length <= max_inflated_bytes / elements, "{}: the IDX header promises an impossible size", c.path);
    elements *= length;
  }
  const uint64_t expected = header + elements * idx_element_size(byte(c.head, 2));
  GzipReader reader(c.path);
  const uint64_t size = drain(reader);
  check_input(size == expected, "{}: the IDX file holds {} bytes, its header promises {}", c.path, size, expected);
  return {"IDX", fmt::format("IDX array, {}", shape)};
}

/// CIFAR binaries have no magic number: a file is one if it consists of whole records whose labels are in range.
struct CifarKind {
  std::string_view name;
  size_t record;                 // bytes: labels, then 32 x 32 pixels in three planes
  std::vector<uint8_t> classes;  // of each label
};

const CifarKind cifar_kinds[] = {{"CIFAR-10", 3073, {10}}, {"CIFAR-100", 3074, {20, 100}}};

bool labels_fit(const CifarKind& kind, std::string_view record) {
  for (size_t i = 0; i < kind.classes.size(); ++i)
    if (byte(record, i) >= kind.classes[i]) return false;
  return true;
}

bool could_be(const CifarKind& kind, const Content& c) {
  return !c.compressed && c.size > 0 && c.size % kind.record == 0 && c.head.size() >= kind.record && labels_fit(kind, c.head) &&
         (c.size == kind.record || labels_fit(kind, std::string_view(c.head).substr(kind.record)));
}

bool is_cifar(const Content& c) {
  return std::ranges::any_of(cifar_kinds, [&](const CifarKind& kind) { return could_be(kind, c); });
}

FileReport describe_cifar(const Content& c) {
  const CifarKind& kind = *std::ranges::find_if(cifar_kinds, [&](const CifarKind& k) { return could_be(k, c); });
  GzipReader reader(c.path);
  std::string record(kind.record, '\0');
  const uint64_t count = c.size / kind.record;
  for (uint64_t i = 0; i < count; ++i) {
    reader.read_exactly(record.data(), record.size());
    check_input(labels_fit(kind, record), "{}: record {} of a {} binary has label {}", c.path, i, kind.name,
                byte(record, kind.classes.size() - 1));
  }
  return {std::string(kind.name), fmt::format("{} binary, {}", kind.name, plural(count, "image", "images"))};
}

bool is_json(const Content& c) {
  const size_t first = c.head.find_first_not_of(" \t\r\n");
  return first != std::string::npos && (c.head[first] == '{' || c.head[first] == '[');
}

FileReport describe_json(const Content& c) {
  const JsonLimits limits{.max_bytes = max_text_bytes};
  const nlohmann::json document = parse_json(read_plain_or_gzip(c.path, max_text_bytes), c.path, limits);
  return {"JSON", document.is_array() ? fmt::format("JSON, an array of {}", plural(document.size(), "value", "values"))
                                      : fmt::format("JSON, an object of {}", plural(document.size(), "key", "keys"))};
}

bool is_gzip_file(const Content& c) { return c.compressed; }

FileReport describe_gzip(const Content& c) {
  GzipReader reader(c.path);
  return {"gzip", fmt::format("{} bytes of no format known here", drain(reader))};
}

struct Probe {
  bool (*matches)(const Content&);
  FileReport (*describe)(const Content&);
};

// The first match decides: formats with a magic number stand before those that are told by less.
constexpr Probe probes[] = {
    {is_image, describe_image}, {is_nifti_file, describe_nifti}, {is_tar_archive, describe_tar}, {is_safetensors, describe_safetensors},
    {is_idx, describe_idx},     {is_cifar, describe_cifar},      {is_json, describe_json},       {is_gzip_file, describe_gzip},
};

}  // namespace

FileReport inspect_file(const std::string& path) {
  GzipReader reader(path);
  Content content{path, std::string(head_bytes, '\0'), reader.compressed(), FileReader(path).size()};
  content.head.resize(reader.read(content.head.data(), content.head.size()));
  check_input(content.size > 0, "{}: the file is empty", path);
  for (const Probe& probe : probes)
    if (probe.matches(content)) {
      FileReport report = probe.describe(content);
      if (content.compressed) report.description += ", gzip-compressed";
      return report;
    }
  fail_input("{}: not a file of a format known here", path);
}

}  // namespace ermoe
