#include "models/layers.h"

#include "ops/add.h"
#include "ops/attention.h"
#include "ops/layer_scale.h"
#include "ops/linear.h"
#include "ops/mlp.h"
#include "ops/qk_norm.h"

namespace ermoe {

Linear::Linear(int64_t in, int64_t out) {
  weight.shape = {out, in};
  weight.decay = true;
  bias.shape = {out};
}

Variable Linear::forward(const ExecContext& ctx, const Variable& x) { return linear(ctx, x, weight, bias); }

void Linear::init(RngKey key) {
  fill_xavier(weight.value, weight.shape[1], weight.shape[0], key_of(key, weight.name));
  fill(bias.value, 0);
}

void Linear::visit(const std::string& prefix, const Visitor& visitor) {
  visitor(join(prefix, "weight"), weight);
  visitor(join(prefix, "bias"), bias);
}

Variable Residual::sum(const ExecContext& ctx) const { return branch.defined() ? add(ctx, x, branch) : x; }

LayerNorm::LayerNorm(int64_t width) { weight.shape = bias.shape = {width}; }

Variable LayerNorm::forward(const ExecContext& ctx, const Variable& x) { return layer_norm(ctx, x, weight, bias, eps); }

NormedSum LayerNorm::forward(const ExecContext& ctx, const Residual& x) {
  if (!x.branch.defined()) return {x.x, forward(ctx, x.x)};
  return add_layer_norm(ctx, x.x, x.branch, weight, bias, eps);
}

void LayerNorm::init() {
  fill(weight.value, 1);
  fill(bias.value, 0);
}

void LayerNorm::visit(const std::string& prefix, const Visitor& visitor) {
  visitor(join(prefix, "weight"), weight);
  visitor(join(prefix, "bias"), bias);
}

SelfAttention::SelfAttention(int64_t width, int64_t head_count, bool normalise)
    : heads(head_count),
      with_qk_norm(normalise),
      qkv(width, 3 * width),
      proj(width, width),
      q_norm(width / head_count),
      k_norm(width / head_count) {}

AttentionOutput SelfAttention::forward(const ExecContext& ctx, const Variable& x) {
  Variable packed = qkv.forward(ctx, x);  // (B, T, 3D)
  if (with_qk_norm) packed = qk_norm(ctx, packed, q_norm.weight, q_norm.bias, k_norm.weight, k_norm.bias, heads, LayerNorm::eps);
  const Variable mixed = attention(ctx, packed, heads, AttentionMask::none);
  return {proj.forward(ctx, mixed), packed};
}

void SelfAttention::init(RngKey key) {
  qkv.init(key);
  proj.init(key);
  if (!with_qk_norm) return;
  q_norm.init();
  k_norm.init();
}

void SelfAttention::visit(const std::string& prefix, const Visitor& visitor) {
  qkv.visit(join(prefix, "qkv"), visitor);
  if (with_qk_norm) {
    q_norm.visit(join(prefix, "q_norm"), visitor);
    k_norm.visit(join(prefix, "k_norm"), visitor);
  }
  proj.visit(join(prefix, "proj"), visitor);
}

Mlp::Mlp(int64_t width, int64_t hidden) : fc1(width, hidden), fc2(hidden, width) {}

Variable Mlp::forward(const ExecContext& ctx, const Variable& x) {
  return mlp(ctx, x, {.w1 = fc1.weight, .b1 = fc1.bias, .w2 = fc2.weight, .b2 = fc2.bias});
}

void Mlp::init(RngKey key) {
  fc1.init(key);
  fc2.init(key);
}

void Mlp::visit(const std::string& prefix, const Visitor& visitor) {
  fc1.visit(join(prefix, "fc1"), visitor);
  fc2.visit(join(prefix, "fc2"), visitor);
}

LayerScale::LayerScale(int64_t width, double start) : initial(start) { gamma.shape = {width}; }

Variable LayerScale::forward(const ExecContext& ctx, const Variable& x) { return initial == 0 ? x : layer_scale(ctx, x, gamma); }

void LayerScale::init() {
  if (initial != 0) fill(gamma.value, initial);
}

void LayerScale::visit(const std::string& prefix, const Visitor& visitor) {
  if (initial != 0) visitor(join(prefix, "gamma"), gamma);
}

}  // namespace ermoe
