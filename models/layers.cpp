#include "models/layers.h"

#include "ops/add.h"
#include "ops/layer_scale.h"
#include "ops/linear.h"
#include "ops/mlp.h"
#include "ops/multiply.h"
#include "ops/qk_norm.h"
#include "ops/scale.h"
#include "ops/sigmoid.h"

namespace ermoe {

Linear::Linear(int64_t in, int64_t out, Bias with) : with_bias(with == Bias::on) {
  weight.shape = {out, in};
  weight.decay = true;
  bias.shape = {out};
}

Variable Linear::forward(const ExecContext& ctx, const Variable& x) {
  return linear(ctx, x, weight, with_bias ? Variable(bias) : Variable());
}

void Linear::init(RngKey key) {
  fill_xavier(weight.value, weight.shape[1], weight.shape[0], key_of(key, weight.name));
  if (with_bias) fill(bias.value, 0);
}

void Linear::visit(const std::string& prefix, const Visitor& visitor) {
  visitor(join(prefix, "weight"), weight);
  if (with_bias) visitor(join(prefix, "bias"), bias);
}

Variable Residual::sum(const ExecContext& ctx) const { return branch.defined() ? add(ctx, x, branch) : x; }

LayerNorm::LayerNorm(int64_t width, double epsilon) : eps(epsilon) { weight.shape = bias.shape = {width}; }

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

SelfAttention::SelfAttention(const Settings& s)
    : heads(s.heads),
      with_qk_norm(s.qk_norm),
      mask(s.mask),
      qkv(s.width, 3 * s.width),
      proj(s.width, s.width),
      q_norm(s.width / s.heads, s.eps),
      k_norm(s.width / s.heads, s.eps) {}

AttentionOutput SelfAttention::forward(const ExecContext& ctx, const Variable& x) {
  Variable packed = qkv.forward(ctx, x);  // (B, T, 3D)
  if (with_qk_norm) packed = qk_norm(ctx, packed, q_norm.weight, q_norm.bias, k_norm.weight, k_norm.bias, heads, q_norm.eps);
  const Variable mixed = attention(ctx, packed, heads, mask);
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

Mlp::Mlp(int64_t width, int64_t hidden, Activation act) : activation(act), fc1(width, hidden), fc2(hidden, width) {}

Variable Mlp::forward(const ExecContext& ctx, const Variable& x) {
  if (activation == Activation::quick_gelu) {
    const Variable h = fc1.forward(ctx, x);
    return fc2.forward(ctx, multiply(ctx, h, sigmoid(ctx, scale(ctx, h, 1.702))));
  }
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
