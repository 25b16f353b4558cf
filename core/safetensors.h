// The safetensors format: named arrays in one file that any framework reads. A file is the length of a header (u64, little-endian),
// the header (JSON: name -> dtype, shape, [begin, end) of its bytes), then the bytes, row-major, without holes or overlaps.
// Everything is checked when a file is opened, so that a name which is there can be loaded. Read next: models/checkpoint_store.h.
#pragma once

#include "core/file_io.h"
#include "core/tensor.h"

#include <map>
#include <string>
#include <vector>

namespace ermoe {

/// Element types that the format knows. The engine reads all but the 8-bit floats.
enum class StoredType : uint8_t { f64, f32, f16, bf16, i64, u64, i32, u32, i16, u16, i8, u8, boolean, f8_e4m3, f8_e5m2 };

/// The format's own spelling, "F32".
const char* name_of(StoredType type);

struct StoredTensor {
  StoredType type = StoredType::f32;
  Shape shape;
  uint64_t offset = 0;  // of the first byte in the file
  uint64_t bytes = 0;
};

/// An open file whose header has been checked; data is read when it is asked for. Every fault is an `InputError` that names the
/// file, and the tensor where there is one.
class SafetensorsFile {
 public:
  using Metadata = std::map<std::string, std::string>;

  /// Reads and checks the header (at most 100 MB). Refuses holes, overlaps, bytes after the last tensor, and names that stand twice.
  static SafetensorsFile open(const std::string& path);

  const std::string& path() const { return file_.path(); }
  const std::map<std::string, StoredTensor>& tensors() const { return tensors_; }
  const Metadata& metadata() const { return metadata_; }
  std::vector<std::string> names() const;
  bool has(const std::string& name) const { return tensors_.contains(name); }
  const StoredTensor& at(const std::string& name) const;
  const Shape& shape(const std::string& name) const { return at(name).shape; }

  /// The tensor as `as`, in host memory. A float converts to any float (rounding to nearest even), an integer or boolean to any
  /// integer that holds every value; all else is refused.
  Tensor load(const std::string& name, CachingAllocator& allocator, DType as) const;
  /// Reads into memory that is already there, a device's too, converting to its dtype. `to` has the stored shape.
  void load_into(const std::string& name, const Tensor& to) const;
  /// Reads as many elements as `to` has, of any shape, from the stored element `first` on, row-major: a rank's experts out of all experts.
  void load_part(const std::string& name, int64_t first, const Tensor& to) const;

 private:
  explicit SafetensorsFile(const std::string& path) : file_(path) {}
  void read_header();
  void read_converting(const std::string& name, const StoredTensor& stored, uint64_t offset, const Tensor& to) const;

  FileReader file_;
  std::map<std::string, StoredTensor> tensors_;
  Metadata metadata_;
};

/// What a file to be written will hold.
struct TensorSpec {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
};

/// How a file begins that holds some tensors, and where in it each lies.
struct SafetensorsLayout {
  std::string head;  // the header's length and the header
  std::map<std::string, StoredTensor> tensors;
  uint64_t bytes = 0;  // of the whole file
};

/// The order is that of `specs`, larger element types first: every tensor is aligned for readers that map the file. Throws `Error`
/// where a name stands twice.
SafetensorsLayout lay_out(std::vector<TensorSpec> specs, const SafetensorsFile::Metadata& metadata);

struct NamedTensor {
  std::string name;
  Tensor tensor;
};

/// Writes tensors that are all at hand, of any device, as they are. On failure the file is removed and `Error` or `InputError` says why.
/// Tensors that several ranks hold in pieces: core/saved_slice.h.
void write_safetensors(const std::string& path, const std::vector<NamedTensor>& entries, const SafetensorsFile::Metadata& metadata = {});

}  // namespace ermoe
