#include "ops/attention_mean.h"

#include "ops/checks.h"
#include "ops/destination.h"
#include "ops/kernels/attention_mean.h"

namespace ermoe {
namespace {

struct AttentionMean {
  static constexpr const char* name = "attention_mean";
  AttentionDims dims;
  Tensor qkv;     // (B, T, 3D)
  Tensor tokens;  // (B, T, D)
  Tensor lse;     // (B, H, T): log-sum-exp of each row of scaled scores

  void backward(const ExecContext& ctx, const Tensor& dy, GradWriter& out) const {
    dispatch_compute(qkv.dtype(), name, [&](auto tag) {
      using T = decltype(tag);
      const auto dqkv = destination<T>(out, 0), dtokens = destination<T>(out, 1);
      const T *x = qkv.data<T>(), *t = tokens.data<T>(), *d = dy.data<T>();
      const Master<T>* const l = lse.data<Master<T>>();
      on_device(
          ctx, tag,
          [&](auto) {
            const auto scratch = ctx.workspace->borrow<T>(cpu::attention_mean_backward_scratch(dims));
            cpu::attention_mean_backward(dims, x, t, l, d, dqkv, dtokens, scratch.data());
          },
          [&](auto) {
            const auto delta = ctx.workspace->borrow<Master<T>>(lse.numel());
            cuda::attention_mean_backward(ctx.stream, dims, x, t, l, d, dqkv, dtokens, delta.data());
          });
    });
  }
};

AttentionDims dims_of(const Variable& qkv, const Variable& tokens, int64_t heads) {
  check_floats(AttentionMean::name, {&qkv, &tokens});
  const Shape& shape = qkv.shape();
  check(shape.rank() == 3 && shape[2] > 0 && shape[2] % 3 == 0, "[attention_mean] wants qkv (B, T, 3D) but got {}", shape.str());
  const int64_t width = shape[2] / 3;
  check(heads > 0 && width % heads == 0, "[attention_mean] qkv {} holds D={}, which {} heads do not divide", shape.str(), width, heads);
  check(tokens.defined() && tokens.shape() == shape.with(2, width), "[attention_mean] qkv {} but tokens {}", shape.str(),
        tokens.shape().str());
  return {.batch = shape[0], .tokens = shape[1], .heads = heads, .head_dim = width / heads};
}

}  // namespace

Variable attention_mean(const ExecContext& ctx, const Variable& qkv, const Variable& tokens, int64_t heads) {
  const AttentionDims dims = dims_of(qkv, tokens, heads);
  Tensor y = ctx.empty(tokens.shape(), qkv.dtype());
  const Tensor lse = ctx.empty({dims.batch, dims.heads, dims.tokens}, master_of(qkv.dtype()));
  dispatch_compute(qkv.dtype(), AttentionMean::name, [&](auto tag) {
    using T = decltype(tag);
    const T *x = qkv.value.data<T>(), *t = tokens.value.data<T>();
    on_device(
        ctx, tag,
        [&](auto) {
          const auto scratch = ctx.workspace->borrow<T>(cpu::attention_mean_forward_scratch(dims));
          cpu::attention_mean_forward(dims, x, t, y.data<T>(), lse.data<Master<T>>(), scratch.data());
        },
        [&](auto) { cuda::attention_mean_forward(ctx.stream, dims, x, t, y.data<T>(), lse.data<Master<T>>()); });
  });
  return record(ctx, std::move(y), {&qkv, &tokens}, AttentionMean{.dims = dims, .qkv = qkv.value, .tokens = tokens.value, .lse = lse});
}

}  // namespace ermoe
