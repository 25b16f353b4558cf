#include "ops/attention.h"

#include "ops/checks.h"

namespace ermoe {
namespace {

struct Attention {
  static constexpr const char* name = "attention";
  AttentionDims dims;
  Tensor qkv;  // (B, T, 3D)
  Tensor y;    // (B, T, D)
  Tensor lse;  // (B, H, T): log-sum-exp of each row of scaled scores

  void backward(const ExecContext& ctx, const Tensor& dy, GradWriter& out) const {
    const auto [dqkv, mode] = out.into(0);
    dispatch_compute(qkv.dtype(), name, [&, &dqkv = dqkv, mode = mode](auto tag) {
      using T = decltype(tag);
      T* const dst = dqkv.template data<T>();
      on_device(
          ctx, tag,
          [&](auto) {
            const auto scratch = ctx.workspace->borrow<T>(cpu::attention_backward_scratch(dims));
            cpu::attention_backward(dims, qkv.data<T>(), y.data<T>(), lse.data<Master<T>>(), dy.data<T>(), dst, mode, scratch.data());
          },
          [&](auto) {
            const auto delta = ctx.workspace->borrow<Master<T>>(lse.numel());
            cuda::attention_backward(ctx.stream, dims, qkv.data<T>(), y.data<T>(), lse.data<Master<T>>(), dy.data<T>(), dst, mode,
                                     delta.data());
          });
    });
  }
};

AttentionDims dims_of(const Variable& x, int64_t heads, AttentionMask mask) {
  check_floats(Attention::name, {&x});
  const Shape& qkv = x.shape();
  check(qkv.rank() == 3 && qkv[2] > 0 && qkv[2] % 3 == 0, "[attention] wants qkv (B, T, 3D) but got {}", qkv.str());
  const int64_t width = qkv[2] / 3;
  check(heads > 0 && width % heads == 0, "[attention] qkv {} holds D={}, which {} heads do not divide", qkv.str(), width, heads);
  return {.batch = qkv[0], .tokens = qkv[1], .heads = heads, .head_dim = width / heads, .mask = mask};
}

}  // namespace

Variable attention(const ExecContext& ctx, const Variable& qkv, int64_t heads, AttentionMask mask) {
  const AttentionDims dims = dims_of(qkv, heads, mask);
  Tensor y = ctx.empty({dims.batch, dims.tokens, dims.width()}, qkv.dtype());
  Tensor lse = ctx.empty({dims.batch, dims.heads, dims.tokens}, master_of(qkv.dtype()));
  dispatch_compute(qkv.dtype(), Attention::name, [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag,
        [&](auto) {
          const auto scratch = ctx.workspace->borrow<T>(cpu::attention_forward_scratch(dims));
          cpu::attention_forward(dims, qkv.value.data<T>(), y.data<T>(), lse.data<Master<T>>(), scratch.data());
        },
        [&](auto) { cuda::attention_forward(ctx.stream, dims, qkv.value.data<T>(), y.data<T>(), lse.data<Master<T>>()); });
  });
  Attention saved{.dims = dims, .qkv = qkv.value, .y = y, .lse = std::move(lse)};
  return record(ctx, std::move(y), {&qkv}, std::move(saved));
}

}  // namespace ermoe
