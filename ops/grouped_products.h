// The grouped GEMMs as ops run them: on the device of the context, in the dtype of the tensors. `starts` are the plan's
// offsets. Read next: ops/kernels/grouped_linear.h.
#pragma once

#include "autograd/grad_writer.h"
#include "ops/kernels/grouped_linear.h"
#include "ops/optional_tensor.h"

namespace ermoe {

/// y = x W_eᵀ + b_e; b may be undefined.
inline void grouped_forward(const ExecContext& ctx, const GroupedLinearDims& dims, const Tensor& x, const Tensor& w, const Tensor& b,
                            const int32_t* starts, const Tensor& y) {
  dispatch_compute(x.dtype(), "grouped_linear", [&](auto tag) {
    using T = decltype(tag);
    const T* bias = data_or_null<T>(b);
    on_device(
        ctx, tag, [&](auto) { cpu::grouped_linear_forward(dims, x.data<T>(), w.data<T>(), bias, starts, y.data<T>()); },
        [&](auto) { cuda::grouped_linear_forward(ctx.stream, dims, x.data<T>(), w.data<T>(), bias, starts, y.data<T>()); });
  });
}

/// dx (+)= dy W_e.
inline void grouped_backward_input(const ExecContext& ctx, const GroupedLinearDims& dims, const Tensor& w, const int32_t* starts,
                                   const Tensor& dy, const GradSlot& dx) {
  dispatch_compute(w.dtype(), "grouped_linear", [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag, [&](auto) { cpu::grouped_linear_backward_input(dims, w.data<T>(), starts, dy.data<T>(), dx.dst.data<T>(), dx.mode); },
        [&](auto) { cuda::grouped_linear_backward_input(ctx.stream, dims, w.data<T>(), starts, dy.data<T>(), dx.dst.data<T>(), dx.mode); });
  });
}

/// Where the gradient of the node's input i, a parameter, goes; nowhere where nobody wants it.
inline GradSlot parameter_slot(GradWriter& out, size_t i) { return out.wants(i) ? out.into_master(i) : GradSlot{}; }

/// dw_e (+)= dyᵀ x and db_e (+)= Σ dy, where either has a place. A parameter whose gradient is narrow gets it rounded once, from float
/// sums.
inline void grouped_backward_parameters(const ExecContext& ctx, const GroupedLinearDims& dims, const Tensor& x, const int32_t* starts,
                                        const Tensor& dy, const GradSlot& dw, const GradSlot& db) {
  if (!dw.dst.defined() && !db.dst.defined()) return;
  dispatch_compute(x.dtype(), "grouped_linear", [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag,
        [&](auto) {
          if (dw.dst.defined())
            cpu::grouped_linear_backward_weight(dims, x.data<T>(), starts, dy.data<T>(), dw.dst.template data<T>(), dw.mode);
          if (db.dst.defined()) cpu::grouped_linear_backward_bias(dims, starts, dy.data<T>(), db.dst.template data<T>(), db.mode);
        },
        [&](auto) {
          const auto at = []<typename G>(G, const GradSlot& slot) { return Destination<G>{data_or_null<G>(slot.dst), slot.mode}; };
          const auto scratch = ctx.workspace->borrow<float>(cuda::grouped_linear_backward_scratch(ctx.stream, dims));
          const auto run = [&](auto weights) {
            cuda::grouped_linear_backward_weight(ctx.stream, dims, x.data<T>(), starts, dy.data<T>(), at(weights, dw), at(Master<T>{}, db),
                                                 scratch.data());
          };
          if (dw.dst.defined() && dw.dst.dtype() == x.dtype())
            run(T{});
          else
            run(Master<T>{});
        });
  });
}

}  // namespace ermoe
