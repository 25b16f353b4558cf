// The affine map's products as ops run them: on the device of the context, in the dtype of the tensors.
// Read next: ops/kernels/linear.h.
#pragma once

#include "ops/column_sum.h"
#include "ops/kernels/linear.h"
#include "ops/optional_tensor.h"

namespace ermoe {

/// y = x Wᵀ + b; b may be undefined.
inline void linear_forward(const ExecContext& ctx, const LinearDims& dims, const Tensor& x, const Tensor& w, const Tensor& b,
                           const Tensor& y) {
  dispatch_compute(x.dtype(), "linear", [&](auto tag) {
    using T = decltype(tag);
    const T* bias = data_or_null<T>(b);
    on_device(
        ctx, tag, [&](auto) { cpu::linear_forward(dims, x.data<T>(), w.data<T>(), bias, y.data<T>()); },
        [&](auto) { cuda::linear_forward(ctx.stream, dims, x.data<T>(), w.data<T>(), bias, y.data<T>()); });
  });
}

/// dx (+)= dy W.
inline void linear_backward_input(const ExecContext& ctx, const LinearDims& dims, const Tensor& w, const Tensor& dy, const GradSlot& dx) {
  dispatch_compute(w.dtype(), "linear", [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag, [&](auto) { cpu::linear_backward_x(dims, dy.data<T>(), w.data<T>(), dx.dst.data<T>(), dx.mode); },
        [&](auto) { cuda::linear_backward_x(ctx.stream, dims, dy.data<T>(), w.data<T>(), dx.dst.data<T>(), dx.mode); });
  });
}

/// The slot of a weight's gradient; without memory where nobody wants it.
inline GradSlot master_slot(GradWriter& out, size_t i) { return out.wants(i) ? out.into_master(i) : GradSlot{}; }

/// dW (+)= dyᵀ x and db (+)= Σ_rows dy, where they are wanted.
inline void linear_backward_parameters(const ExecContext& ctx, const LinearDims& dims, const Tensor& x, const Tensor& dy,
                                       const GradSlot& dw, const GradSlot& db) {
  const ColumnSumDims sum{dims.rows, dims.out, dims.out};
  dispatch_compute(x.dtype(), "linear", [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag,
        [&](auto) {
          if (dw.dst.defined()) cpu::linear_backward_w(dims, dy.data<T>(), x.data<T>(), dw.dst.template data<T>(), dw.mode);
          if (db.dst.defined()) column_sum(ctx, sum, dy, db);
        },
        [&](auto) {
          const auto at = [](const GradSlot& slot) { return Destination<Master<T>>{data_or_null<Master<T>>(slot.dst), slot.mode}; };
          const auto scratch = ctx.workspace->borrow<float>(db.dst.defined() ? cuda::linear_backward_scratch(ctx.stream, dims) : 0);
          cuda::linear_backward_parameters(ctx.stream, dims, dy.data<T>(), x.data<T>(), at(dw), at(db), scratch.data());
        });
  });
}

}  // namespace ermoe
