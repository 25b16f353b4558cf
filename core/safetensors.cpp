#include "core/safetensors.h"

#include "core/json.h"
#include "core/saved_slice.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <utility>

namespace ermoe {
namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "files are little-endian and are read as they are");

constexpr uint64_t max_header = 100'000'000;  // as the reference implementation has it
constexpr size_t chunk_bytes = size_t{1} << 20;
constexpr const char* metadata_key = "__metadata__";

struct TypeRow {
  StoredType type;
  const char* name;
  uint64_t bytes;
};
constexpr std::array type_table{
    TypeRow{StoredType::f64, "F64", 8},      TypeRow{StoredType::f32, "F32", 4},         TypeRow{StoredType::f16, "F16", 2},
    TypeRow{StoredType::bf16, "BF16", 2},    TypeRow{StoredType::i64, "I64", 8},         TypeRow{StoredType::u64, "U64", 8},
    TypeRow{StoredType::i32, "I32", 4},      TypeRow{StoredType::u32, "U32", 4},         TypeRow{StoredType::i16, "I16", 2},
    TypeRow{StoredType::u16, "U16", 2},      TypeRow{StoredType::i8, "I8", 1},           TypeRow{StoredType::u8, "U8", 1},
    TypeRow{StoredType::boolean, "BOOL", 1}, TypeRow{StoredType::f8_e4m3, "F8_E4M3", 1}, TypeRow{StoredType::f8_e5m2, "F8_E5M2", 1},
};
const TypeRow& row_of(StoredType type) { return *std::ranges::find(type_table, type, &TypeRow::type); }

StoredType stored_type(DType dtype) {
  switch (dtype) {
    case DType::f32: return StoredType::f32;
    case DType::f64: return StoredType::f64;
    case DType::bf16: return StoredType::bf16;
    case DType::i32: return StoredType::i32;
    case DType::i64: return StoredType::i64;
    case DType::u8: return StoredType::u8;
  }
  fail("[safetensors] unknown dtype {}", static_cast<int>(dtype));
}

/// IEEE half precision as stored.
struct Half {
  uint16_t bits;
  explicit operator float() const {
    const uint32_t exponent = (bits >> 10) & 31u, fraction = bits & 1023u;
    const float sign = (bits & 0x8000u) != 0 ? -1.0f : 1.0f;
    if (exponent == 0) return sign * static_cast<float>(fraction) * 0x1p-24f;
    const uint32_t wide = exponent == 31 ? 255u : exponent + 112u;  // the biases are 15 and 127
    return std::bit_cast<float>((uint32_t{bits} & 0x8000u) << 16 | wide << 23 | fraction << 13);
  }
};

/// Calls `fn(T{})` with the C++ type of a stored type, where there is one.
template <typename Fn>
void with_stored(StoredType type, Fn&& fn) {
  switch (type) {
    case StoredType::f64: return fn(double{});
    case StoredType::f32: return fn(float{});
    case StoredType::f16: return fn(Half{});
    case StoredType::bf16: return fn(bf16{});
    case StoredType::i64: return fn(int64_t{});
    case StoredType::u64: return fn(uint64_t{});
    case StoredType::i32: return fn(int32_t{});
    case StoredType::u32: return fn(uint32_t{});
    case StoredType::i16: return fn(int16_t{});
    case StoredType::u16: return fn(uint16_t{});
    case StoredType::i8: return fn(int8_t{});
    case StoredType::u8:
    case StoredType::boolean: return fn(uint8_t{});
    case StoredType::f8_e4m3:
    case StoredType::f8_e5m2: return;
  }
}

/// Calls `fn(T{})` with the C++ type of one of the engine's dtypes.
template <typename Fn>
void with_dtype(DType dtype, Fn&& fn) {
  switch (dtype) {
    case DType::f32: return fn(float{});
    case DType::f64: return fn(double{});
    case DType::bf16: return fn(bf16{});
    case DType::i32: return fn(int32_t{});
    case DType::i64: return fn(int64_t{});
    case DType::u8: return fn(uint8_t{});
  }
}

/// A tensor's name with its file, as every message about it starts.
std::string label(const std::string& path, std::string_view name) { return fmt::format("{}: tensor '{}'", path, printable(name)); }

/// A member of a tensor's entry in the header that has to be there.
const json& member(const json& entry, const char* key, const std::string& who) {
  check_input(entry.is_object(), "{} is described by a JSON {} instead of an object", who, entry.type_name());
  const auto it = entry.find(key);
  check_input(it != entry.end(), "{} has no '{}'", who, key);
  return *it;
}

StoredType parse_type(const json& value, const std::string& who) {
  check_input(value.is_string(), "{} has a dtype that is a JSON {}", who, value.type_name());
  const auto& text = value.get_ref<const std::string&>();
  const auto* row = std::ranges::find_if(type_table, [&](const TypeRow& r) { return text == r.name; });
  check_input(row != type_table.end(), "{} has the unknown dtype '{}'", who, printable(text));
  return row->type;
}

Shape parse_shape(const json& value, uint64_t element, const std::string& who) {
  check_input(value.is_array(), "{} has a shape that is a JSON {}", who, value.type_name());
  check_input(value.size() <= Shape::max_rank, "{} has {} axes, above the limit of {}", who, value.size(), Shape::max_rank);
  std::vector<int64_t> sizes;
  auto product = static_cast<int64_t>(element);
  for (const json& size : value) {
    check_input(size.is_number_unsigned(), "{} has an axis that is no whole number of 0 or more", who);
    const auto n = size.get<uint64_t>();
    // An axis of 0 counts as 1 here: a product of any of the axes must be safe to take.
    check_input(std::in_range<int64_t>(n) && !__builtin_mul_overflow(product, static_cast<int64_t>(std::max<uint64_t>(n, 1)), &product),
                "{} has a shape larger than any file", who);
    sizes.push_back(static_cast<int64_t>(n));
  }
  return Shape(sizes);
}

StoredTensor parse_entry(const json& entry, uint64_t data_begin, uint64_t data_bytes, const std::string& who) {
  StoredTensor stored;
  stored.type = parse_type(member(entry, "dtype", who), who);
  const uint64_t element = row_of(stored.type).bytes;
  stored.shape = parse_shape(member(entry, "shape", who), element, who);
  const json& offsets = member(entry, "data_offsets", who);
  check_input(offsets.is_array() && offsets.size() == 2 && offsets[0].is_number_unsigned() && offsets[1].is_number_unsigned(),
              "{} has data_offsets that are not two whole numbers of 0 or more", who);
  const auto begin = offsets[0].get<uint64_t>(), end = offsets[1].get<uint64_t>();
  check_input(begin <= end, "{} begins at byte {} but ends at {}", who, begin, end);
  check_input(end <= data_bytes, "{} ends at byte {} of {} bytes of data", who, end, data_bytes);
  const uint64_t needed = static_cast<uint64_t>(stored.shape.numel()) * element;
  check_input(end - begin == needed, "{} has {} bytes, but {} {} takes {}", who, end - begin, name_of(stored.type), stored.shape.str(),
              needed);
  stored.offset = data_begin + begin;
  stored.bytes = needed;
  return stored;
}

SafetensorsFile::Metadata parse_metadata(const json& value, const std::string& path) {
  check_input(value.is_object(), "{}: {} is a JSON {} instead of an object", path, metadata_key, value.type_name());
  SafetensorsFile::Metadata metadata;
  for (const auto& [key, text] : value.items()) {
    check_input(text.is_string(), "{}: {} '{}' is a JSON {} instead of a string", path, metadata_key, printable(key), text.type_name());
    metadata.emplace(key, text.get<std::string>());
  }
  return metadata;
}

/// Every byte of data belongs to exactly one tensor.
void check_coverage(const std::map<std::string, StoredTensor>& tensors, uint64_t begin, uint64_t end, const std::string& path) {
  std::vector<std::pair<const std::string*, const StoredTensor*>> order;
  for (const auto& [name, stored] : tensors) order.emplace_back(&name, &stored);
  std::ranges::sort(order, {}, [](const auto& item) { return std::pair(item.second->offset, item.second->bytes); });
  uint64_t next = begin;
  for (const auto& [name, stored] : order) {
    check_input(stored->offset >= next, "{} shares bytes with another tensor", label(path, *name));
    check_input(stored->offset == next, "{} follows {} bytes that belong to no tensor", label(path, *name), stored->offset - next);
    next += stored->bytes;
  }
  check_input(next == end, "{}: {} bytes after the last tensor", path, end - next);
}

}  // namespace

const char* name_of(StoredType type) { return row_of(type).name; }

SafetensorsFile SafetensorsFile::open(const std::string& path) {
  SafetensorsFile file(path);
  file.read_header();
  return file;
}

void SafetensorsFile::read_header() {
  check_input(file_.size() >= 8, "{}: {} bytes are too few for a safetensors file", path(), file_.size());
  uint64_t length = 0;
  file_.read(0, &length, sizeof length);
  check_input(length <= max_header, "{}: a header of {} bytes is above the limit of {}; is this a safetensors file?", path(), length,
              max_header);
  check_input(length <= file_.size() - 8, "{}: the header should have {} bytes, but only {} follow", path(), length, file_.size() - 8);
  std::string text(length, '\0');
  file_.read(8, text.data(), length);
  check_input(text.starts_with('{'), "{}: the header does not begin with '{{'; is this a safetensors file?", path());
  const json header = parse_json(text, path() + " (header)", {.max_bytes = max_header, .max_depth = 8, .max_values = 1'000'000});
  const uint64_t data_begin = 8 + length;
  for (const auto& [name, entry] : header.items()) {
    if (name == metadata_key)
      metadata_ = parse_metadata(entry, path());
    else
      tensors_.emplace(name, parse_entry(entry, data_begin, file_.size() - data_begin, label(path(), name)));
  }
  check_coverage(tensors_, data_begin, file_.size(), path());
}

std::vector<std::string> SafetensorsFile::names() const {
  std::vector<std::string> names;
  for (const auto& [name, stored] : tensors_) names.push_back(name);
  return names;
}

const StoredTensor& SafetensorsFile::at(const std::string& name) const {
  const auto it = tensors_.find(name);
  check_input(it != tensors_.end(), "{}: has no tensor '{}'", path(), printable(name));
  return it->second;
}

Tensor SafetensorsFile::load(const std::string& name, CachingAllocator& allocator, DType as) const {
  const Tensor t = Tensor::empty(allocator, at(name).shape, as, "safetensors");
  load_into(name, t);
  return t;
}

void SafetensorsFile::load_into(const std::string& name, const Tensor& to) const {
  const StoredTensor& stored = at(name);
  check_input(stored.shape == to.shape(), "{} has shape {} where {} is needed", label(path(), name), stored.shape.str(), to.shape().str());
  read_converting(name, stored, stored.offset, to);
}

void SafetensorsFile::load_part(const std::string& name, int64_t first, const Tensor& to) const {
  const StoredTensor& stored = at(name);
  const int64_t numel = stored.shape.numel();
  check_input(first >= 0 && first <= numel && to.numel() <= numel - first, "{} has shape {}, which has no elements {} to {}",
              label(path(), name), stored.shape.str(), first, first + to.numel());
  if (to.numel() > 0) read_converting(name, stored, stored.offset + static_cast<uint64_t>(first) * row_of(stored.type).bytes, to);
}

namespace {

/// Reads elements of type Src from `offset` and stores them as Dst, both floats or both integers. `who` starts messages.
template <typename Src, typename Dst>
void read_as(const FileReader& file, uint64_t offset, const Tensor& to, const std::string& who) {
  std::vector<Src> chunk(std::min(static_cast<size_t>(to.numel()), chunk_bytes / sizeof(Src)));
  Dst* out = to.data<Dst>();
  for (int64_t done = 0; done < to.numel();) {
    const auto count = std::min(to.numel() - done, static_cast<int64_t>(chunk.size()));
    file.read(offset + static_cast<uint64_t>(done) * sizeof(Src), chunk.data(), static_cast<size_t>(count) * sizeof(Src));
    for (int64_t i = 0; i < count; ++i) {
      const Src value = chunk[static_cast<size_t>(i)];
      if constexpr (std::is_integral_v<Src>) {
        check_input(std::in_range<Dst>(value), "{} holds {}, which does not fit {}", who, value, name_of(to.dtype()));
        out[done + i] = static_cast<Dst>(value);
      } else {
        out[done + i] = static_cast<Dst>(static_cast<float>(value));  // no loss but the last rounding: one of the two is f32 or less
      }
    }
    done += count;
  }
}

}  // namespace

void SafetensorsFile::read_converting(const std::string& name, const StoredTensor& stored, uint64_t offset, const Tensor& to) const {
  if (to.device().is_cuda()) {
    CachingAllocator host(make_host_source());
    const Tensor staged = Tensor::empty(host, to.shape(), to.dtype(), "checkpoint");
    read_converting(name, stored, offset, staged);
    return copy(staged, to);
  }
  if (stored.type == stored_type(to.dtype())) return file_.read(offset, to.raw(), to.bytes());
  const std::string who = label(path(), name);
  bool converted = false;
  with_stored(stored.type, [&]<typename Src>(Src) {
    with_dtype(to.dtype(), [&]<typename Dst>(Dst) {
      if constexpr (std::is_integral_v<Src> == std::is_integral_v<Dst>) {
        read_as<Src, Dst>(file_, offset, to, who);
        converted = true;
      }
    });
  });
  check_input(converted, "{} is {}, which does not convert to {}", who, name_of(stored.type), name_of(to.dtype()));
}

namespace {

/// Header text, padded with spaces so that the data starts at a multiple of 8 bytes. `offset` is that of each tensor in the data.
std::string header_of(const std::vector<TensorSpec>& specs, const std::vector<uint64_t>& offsets,
                      const SafetensorsFile::Metadata& metadata) {
  std::string text = "{";
  if (!metadata.empty())
    text += fmt::format("\"{}\":{},", metadata_key, json(metadata).dump(-1, ' ', false, json::error_handler_t::replace));
  for (size_t i = 0; i < specs.size(); ++i) {
    const TensorSpec& spec = specs[i];
    const json entry{{"dtype", name_of(stored_type(spec.dtype))},
                     {"shape", std::vector<int64_t>(spec.shape.begin(), spec.shape.end())},
                     {"data_offsets", {offsets[i], offsets[i + 1]}}};
    text += fmt::format("{}:{},", json(spec.name).dump(), entry.dump());
  }
  if (text.size() > 1) text.pop_back();
  text += '}';
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

}  // namespace

SafetensorsLayout lay_out(std::vector<TensorSpec> specs, const SafetensorsFile::Metadata& metadata) {
  std::ranges::stable_sort(specs, std::greater{}, [](const TensorSpec& spec) { return size_of(spec.dtype); });
  std::vector<uint64_t> offsets{0};
  for (const TensorSpec& spec : specs) offsets.push_back(offsets.back() + static_cast<uint64_t>(spec.shape.numel()) * size_of(spec.dtype));
  const std::string header = header_of(specs, offsets, metadata);
  check(header.size() <= max_header, "[safetensors] a header of {} bytes is above the limit of {}", header.size(), max_header);
  SafetensorsLayout layout;
  const uint64_t length = header.size();
  layout.head.assign(reinterpret_cast<const char*>(&length), sizeof length);
  layout.head += header;
  for (size_t i = 0; i < specs.size(); ++i) {
    const StoredTensor stored{stored_type(specs[i].dtype), specs[i].shape, layout.head.size() + offsets[i], offsets[i + 1] - offsets[i]};
    const bool fresh = specs[i].name != metadata_key && layout.tensors.emplace(specs[i].name, stored).second;
    check(fresh, "[safetensors] the name '{}' twice", specs[i].name);
  }
  layout.bytes = layout.head.size() + offsets.back();
  return layout;
}

void write_safetensors(const std::string& path, const std::vector<NamedTensor>& entries, const SafetensorsFile::Metadata& metadata) {
  std::vector<SavedSlice> slices;
  for (const auto& [name, tensor] : entries) {
    check(tensor.defined(), "[safetensors] {}: '{}' is an undefined tensor", path, name);
    slices.push_back({.name = name, .whole = tensor.shape(), .first = 0, .part = tensor, .writes = true, .stored = tensor.dtype()});
  }
  SelfCommunicator alone;
  write_slices(path, slices, alone, metadata);
}

}  // namespace ermoe
