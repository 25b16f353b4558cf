#include "models/cp_layer.h"

#include "models/config_rules.h"
#include "ops/cast.h"
#include "ops/column_sum.h"
#include "ops/gelu.h"
#include "ops/linear.h"
#include "ops/multiply.h"
#include "ops/scale.h"
#include "ops/softmax.h"
#include "ops/tokens.h"

namespace ermoe {

CpLayer::Factors::Factors(int64_t experts, int64_t in, int64_t out, int64_t rank) : down(in, rank), up(rank, out) {
  mix.shape = {rank, experts};
  mix.decay = true;
}

Variable CpLayer::Factors::forward(const ExecContext& ctx, const Variable& x, const Variable& a) {
  const Variable mixed = multiply(ctx, linear(ctx, a, mix, Variable()), down.forward(ctx, x));
  return linear(ctx, mixed, up.weight, Variable());
}

void CpLayer::Factors::init(RngKey key) {
  fill_normal(mix.value, 1, key_of(key, mix.name));
  dispatch_float(mix.value.dtype(), "cp_layer", [&](auto tag) {
    for (auto& v : mix.value.span<decltype(tag)>()) v += 1;
  });
  down.init(key);
  fill_xavier(up.weight.value, up.weight.shape[1], up.weight.shape[0], key_of(key, up.weight.name));
}

void CpLayer::Factors::visit(const std::string& prefix, const Visitor& visitor) {
  visitor(join(prefix, "mix"), mix);
  down.visit(join(prefix, "down"), visitor);
  visitor(join(prefix, "up.weight"), up.weight);
}

CpLayer::CpLayer(const VitConfig& model, int64_t block)
    : block_(block),
      first_(model.moe.experts, model.width, expert_hidden(model), cp_rank(model)),
      second_(model.moe.experts, expert_hidden(model), model.width, cp_rank(model)) {
  gate_.shape = {model.moe.experts, model.width};
  gate_.decay = true;
}

Variable CpLayer::forward(const ExecContext& ctx, const Variable& x, Tensor& mean) {
  const int64_t D = x.shape()[2], N = x.shape()[0] * x.shape()[1], E = gate_.shape[0];
  const Variable tokens = reshape(ctx, x, {N, D});
  const Variable shares = softmax(ctx, cast(ctx, linear(ctx, tokens, gate_, Variable()), gate_.value.dtype()));  // (N, E), f32 beside bf16
  const Tensor sums = ctx.empty({E}, shares.dtype());
  column_sum(ctx, {.rows = N, .cols = E, .stride = E}, shares.value, {sums, Accumulate::overwrite});
  mean = scale(ctx.with_tape(nullptr), Variable(sums), 1 / static_cast<double>(N)).value;
  const Variable a = cast(ctx, shares, x.dtype());
  return reshape(ctx, second_.forward(ctx, gelu(ctx, first_.forward(ctx, tokens, a)), a), x.shape());
}

double CpLayer::flops() const {
  const int64_t E = gate_.shape[0], D = gate_.shape[1], F = first_.up.weight.shape[0];
  return 2.0 * static_cast<double>(E * D + 2 * rank() * (E + D + F));
}

void CpLayer::init(RngKey key) {
  fill_normal(gate_.value, 0.02, key_of(key, gate_.name));
  first_.init(key);
  second_.init(key);
}

void CpLayer::visit(const std::string& prefix, const Visitor& visitor) {
  visitor(join(prefix, "gate"), gate_);
  first_.visit(join(prefix, "fc1"), visitor);
  second_.visit(join(prefix, "fc2"), visitor);
}

}  // namespace ermoe
