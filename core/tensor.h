// The tensor: a handle on shared memory, a shape, a dtype and an offset. Always contiguous; the only views are
// a reshape and a slice of the first axis. No arithmetic, no gradient: those live in ops/ and autograd/.
#pragma once

#include "core/allocator.h"
#include "core/dtype.h"
#include "core/shape.h"

#include <memory>
#include <span>

namespace ermoe {

/// Owns one block of an allocator, returned when the last handle goes.
class Storage {
 public:
  Storage(CachingAllocator& allocator, size_t bytes, const char* scope) : allocator_(allocator), block_(allocator.allocate(bytes, scope)) {}
  ~Storage() { allocator_.release(block_); }
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  std::byte* data() const { return static_cast<std::byte*>(block_.data); }
  CachingAllocator& allocator() const { return allocator_; }

 private:
  CachingAllocator& allocator_;
  Block block_;
};

/// Copying copies the handle; `clone` copies the data. A default-made tensor is empty (`!defined()`).
class Tensor {
 public:
  Tensor() = default;

  /// Uninitialised memory. `scope`: a string literal for the allocator's statistics.
  static Tensor empty(CachingAllocator& allocator, const Shape& shape, DType dtype, const char* scope = "tensor");
  /// Zero-filled.
  static Tensor zeros(CachingAllocator& allocator, const Shape& shape, DType dtype, const char* scope = "tensor");
  /// Copies host values in.
  template <typename T>
  static Tensor from(CachingAllocator& allocator, const Shape& shape, std::span<const T> values, const char* scope = "tensor");

  bool defined() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  DType dtype() const { return dtype_; }
  int64_t numel() const { return numel_; }
  size_t bytes() const { return static_cast<size_t>(numel_) * size_of(dtype_); }
  Device device() const { return storage_ ? storage_->allocator().device() : Device{}; }
  CachingAllocator& allocator() const { return storage_->allocator(); }

  /// Pointer to the first element. Throws where T is not the dtype.
  template <typename T>
  T* data() const {
    check(defined() && DTypeOf<T>::value == dtype_, "[tensor] {} read as {}", defined() ? name_of(dtype_) : "an undefined tensor",
          name_of(DTypeOf<T>::value));
    return reinterpret_cast<T*>(raw());
  }
  template <typename T>
  std::span<T> span() const {
    return {data<T>(), static_cast<size_t>(numel_)};
  }
  std::byte* raw() const { return storage_->data() + offset_; }

  /// The same elements under another shape.
  Tensor reshape(const Shape& shape) const;
  /// Rows [begin, end) of the first axis, without copying.
  Tensor slice(int64_t begin, int64_t end) const;
  /// Row i of the first axis, with that axis dropped.
  Tensor at(int64_t i) const;
  /// A piece of `shape` that starts `elements` elements into this one: how arenas hand out their slots.
  Tensor window(int64_t elements, const Shape& shape) const;
  /// A copy of the data in memory of its own, from the same allocator.
  Tensor clone(const char* scope = "tensor") const;
  /// A copy in `allocator`'s memory, which may be another device's.
  Tensor to(CachingAllocator& allocator, const char* scope = "tensor") const;

  /// True where nobody else holds this memory: only then may it be written in place.
  bool unique() const { return storage_.use_count() == 1; }
  bool shares_memory_with(const Tensor& other) const { return storage_ == other.storage_; }

 private:
  std::shared_ptr<Storage> storage_;
  Shape shape_;
  DType dtype_ = DType::f32;
  int64_t numel_ = 0;
  size_t offset_ = 0;  // bytes
};

/// Copies between tensors of equal shape and dtype, of the same device or to or from the host.
void copy(const Tensor& from, const Tensor& to);

/// Every byte 0, which is the number 0 in each dtype.
void zero(const Tensor& t);

/// The one value of a tensor of one element, on the host. Waits for a device.
template <typename T>
T item(const Tensor& t);

template <typename T>
Tensor Tensor::from(CachingAllocator& allocator, const Shape& shape, std::span<const T> values, const char* scope) {
  Tensor t = empty(allocator, shape, DTypeOf<T>::value, scope);
  check(static_cast<int64_t>(values.size()) == t.numel(), "[tensor] {} values for shape {}", values.size(), shape.str());
  allocator.source().upload(t.data<T>(), values.data(), t.bytes());
  return t;
}

template <typename T>
T item(const Tensor& t) {
  check(t.numel() == 1, "[item] {} is not one value", t.shape().str());
  T value;
  t.allocator().source().download(&value, t.data<T>(), sizeof(T));
  return value;
}

}  // namespace ermoe
