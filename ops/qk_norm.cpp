#include "ops/qk_norm.h"

#include "ops/checks.h"
#include "ops/destination.h"
#include "ops/kernels/qk_norm.h"

namespace ermoe {
namespace {

struct QkNorm {
  static constexpr const char* name = "qk_norm";
  QkNormDims dims;
  Tensor qkv;                 // (B, T, 3D)
  Tensor q_w, q_b, k_w, k_b;  // (Dh)
  Tensor mean;                // (N, 2H)
  Tensor rstd;                // (N, 2H), 1 / sqrt(var + eps)

  template <typename T>
  QkNormWeights<T> weights() const {
    return {q_w.data<T>(), q_b.data<T>(), k_w.data<T>(), k_b.data<T>()};
  }

  void backward(const ExecContext& ctx, const Tensor& dy, GradWriter& out) const {
    dispatch_compute(qkv.dtype(), name, [&](auto tag) {
      using T = decltype(tag);
      const auto dqkv = destination<T>(out, 0);
      const QkNormGradients<Master<T>> dw{master_destination<T>(out, 1), master_destination<T>(out, 2), master_destination<T>(out, 3),
                                          master_destination<T>(out, 4)};
      const auto partials = ctx.workspace->borrow<Master<T>>(dims.partials());
      const T *x = qkv.data<T>(), *d = dy.data<T>();
      const Master<T>*m = mean.data<Master<T>>(), *s = rstd.data<Master<T>>();
      on_device(
          ctx, tag, [&](auto) { cpu::qk_norm_backward(dims, x, weights<T>(), m, s, d, dqkv, dw, partials.data()); },
          [&](auto) { cuda::qk_norm_backward(ctx.stream, dims, x, weights<T>(), m, s, d, dqkv, dw, partials.data()); });
    });
  }
};

QkNormDims dims_of(const Variable& qkv, std::initializer_list<const Variable*> weights, int64_t heads, double eps) {
  const Shape& shape = qkv.shape();
  check(shape.rank() == 3 && shape[2] > 0 && shape[2] % 3 == 0, "[qk_norm] wants qkv (B, T, 3D) but got {}", shape.str());
  const int64_t width = shape[2] / 3;
  check(heads > 0 && width % heads == 0, "[qk_norm] qkv {} holds D={}, which {} heads do not divide", shape.str(), width, heads);
  const Shape wanted{width / heads};
  for (const Variable* w : weights) {
    check(w->defined() && w->shape() == wanted, "[qk_norm] qkv {} with {} heads but weight {}", shape.str(), heads, w->shape().str());
    check(w->dtype() == qkv.dtype(), "[qk_norm] qkv {} but weight {}", name_of(qkv.dtype()), name_of(w->dtype()));
  }
  return {.rows = shape.rows(), .heads = heads, .head_dim = width / heads, .eps = eps};
}

}  // namespace

Variable qk_norm(const ExecContext& ctx, const Variable& qkv, const Variable& q_w, const Variable& q_b, const Variable& k_w,
                 const Variable& k_b, int64_t heads, double eps) {
  check_floats(QkNorm::name, {&qkv});
  const QkNormDims dims = dims_of(qkv, {&q_w, &q_b, &k_w, &k_b}, heads, eps);
  Tensor y = ctx.empty(qkv.shape(), qkv.dtype());
  QkNorm op{.dims = dims,
            .qkv = qkv.value,
            .q_w = q_w.value,
            .q_b = q_b.value,
            .k_w = k_w.value,
            .k_b = k_b.value,
            .mean = ctx.empty({dims.rows, 2 * heads}, master_of(qkv.dtype())),
            .rstd = ctx.empty({dims.rows, 2 * heads}, master_of(qkv.dtype()))};
  dispatch_compute(qkv.dtype(), QkNorm::name, [&](auto tag) {
    using T = decltype(tag);
    const T* const x = qkv.value.data<T>();
    Master<T>*const m = op.mean.data<Master<T>>(), *const s = op.rstd.data<Master<T>>();
    on_device(
        ctx, tag, [&](auto) { cpu::qk_norm_forward(dims, x, op.weights<T>(), y.data<T>(), m, s); },
        [&](auto) { cuda::qk_norm_forward(ctx.stream, dims, x, op.weights<T>(), y.data<T>(), m, s); });
  });
  return record(ctx, std::move(y), {&qkv, &q_w, &q_b, &k_w, &k_b}, std::move(op));
}

}  // namespace ermoe
