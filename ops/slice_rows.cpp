#include "ops/slice_rows.h"

#include "ops/kernels/slice_rows.h"

namespace ermoe {
namespace {

struct SliceRows {
  static constexpr const char* name = "slice_rows";
  SliceRowsDims dims;

  void backward(const ExecContext& ctx, const Tensor& dy, GradWriter& out) const {
    const GradSlot dx = out.into(0);
    dispatch_compute(dy.dtype(), name, [&](auto tag) {
      using T = decltype(tag);
      on_device(
          ctx, tag, [&](auto) { cpu::slice_rows_backward(dims, dy.data<T>(), dx.dst.data<T>(), dx.mode); },
          [&](auto) { cuda::slice_rows_backward(ctx.stream, dims, dy.data<T>(), dx.dst.data<T>(), dx.mode); });
    });
  }
};

}  // namespace

Variable slice_rows(const ExecContext& ctx, const Variable& x, int64_t begin, int64_t end) {
  Tensor part = x.value.slice(begin, end);
  const int64_t row = x.shape()[0] == 0 ? 0 : x.value.numel() / x.shape()[0];
  const SliceRowsDims dims{.begin = begin * row, .count = part.numel(), .numel = x.value.numel()};
  return record(ctx, std::move(part), {&x}, SliceRows{.dims = dims});
}

}  // namespace ermoe
