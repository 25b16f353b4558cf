#include "ops/column_sum.h"

namespace ermoe {

void column_sum(const ExecContext& ctx, const ColumnSumDims& dims, const Tensor& x, const GradSlot& slot, int64_t first) {
  dispatch_compute(x.dtype(), "column_sum", [&](auto tag) {
    using T = decltype(tag);
    const auto partials = ctx.workspace->borrow<Master<T>>(dims.partials());
    const T* rows = x.data<T>() + first;
    on_device(
        ctx, tag, [&](auto) { cpu::column_sum(dims, rows, partials.data(), slot.dst.data<Master<T>>(), slot.mode); },
        [&](auto) { cuda::column_sum(ctx.stream, dims, rows, partials.data(), slot.dst.data<Master<T>>(), slot.mode); });
  });
}

}  // namespace ermoe
