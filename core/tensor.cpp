#include "core/tensor.h"

namespace ermoe {

Tensor Tensor::empty(CachingAllocator& allocator, const Shape& shape, DType dtype, const char* scope) {
  int64_t bytes = static_cast<int64_t>(size_of(dtype));
  for (int64_t size : shape)
    check(!__builtin_mul_overflow(bytes, size, &bytes), "[tensor] {} of {} is more than memory can hold", shape.str(), name_of(dtype));
  Tensor t;
  t.storage_ = std::make_shared<Storage>(allocator, static_cast<size_t>(bytes), scope);
  t.shape_ = shape;
  t.dtype_ = dtype;
  t.numel_ = shape.numel();
  return t;
}

Tensor Tensor::zeros(CachingAllocator& allocator, const Shape& shape, DType dtype, const char* scope) {
  Tensor t = empty(allocator, shape, dtype, scope);
  zero(t);
  return t;
}

Tensor Tensor::reshape(const Shape& shape) const {
  check(shape.numel() == numel_, "[reshape] {} to {}", shape_.str(), shape.str());
  Tensor t = *this;
  t.shape_ = shape;
  return t;
}

Tensor Tensor::slice(int64_t begin, int64_t end) const {
  check(shape_.rank() > 0 && 0 <= begin && begin <= end && end <= shape_[0], "[slice] rows {} to {} of {}", begin, end, shape_.str());
  const int64_t row = shape_[0] == 0 ? 0 : numel_ / shape_[0];
  return window(begin * row, shape_.with(0, end - begin));
}

Tensor Tensor::at(int64_t i) const {
  const Tensor row = slice(i, i + 1);
  return row.reshape(Shape(std::span(shape_.begin() + 1, shape_.end())));
}

Tensor Tensor::window(int64_t elements, const Shape& shape) const {
  check(elements >= 0 && elements + shape.numel() <= numel_, "[window] {} at {} of {}", shape.str(), elements, shape_.str());
  Tensor t = *this;
  t.shape_ = shape;
  t.numel_ = shape.numel();
  t.offset_ += static_cast<size_t>(elements) * size_of(dtype_);
  return t;
}

Tensor Tensor::clone(const char* scope) const {
  Tensor t = empty(allocator(), shape_, dtype_, scope);
  copy(*this, t);
  return t;
}

Tensor Tensor::to(CachingAllocator& allocator, const char* scope) const {
  Tensor t = empty(allocator, shape_, dtype_, scope);
  copy(*this, t);
  return t;
}

void copy(const Tensor& from, const Tensor& to) {
  check(from.shape() == to.shape() && from.dtype() == to.dtype(), "[copy] {} {} to {} {}", name_of(from.dtype()), from.shape().str(),
        name_of(to.dtype()), to.shape().str());
  const Device source = from.device(), target = to.device();
  if (source == target) return to.allocator().source().copy(to.raw(), from.raw(), from.bytes());
  if (target.is_cuda()) {
    check(!source.is_cuda(), "[copy] from one GPU to another");
    return to.allocator().source().upload(to.raw(), from.raw(), from.bytes());
  }
  from.allocator().source().download(to.raw(), from.raw(), from.bytes());
}

void zero(const Tensor& t) { t.allocator().source().set(t.raw(), 0, t.bytes()); }

}  // namespace ermoe
