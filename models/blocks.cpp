#include "models/blocks.h"

#include "autograd/recompute.h"
#include "models/config_rules.h"
#include "ops/attention_mean.h"
#include "ops/dropout.h"
#include "ops/scale.h"
#include "ops/tokens.h"

#include <algorithm>
#include <utility>

namespace ermoe {

VitBlock::VitBlock(const VitConfig& config, int64_t index, int64_t id, bool with_experts, AttentionMask mask)
    : dropout_(config.dropout),
      drop_path_(config.depth > 1 ? config.drop_path * static_cast<double>(index) / static_cast<double>(config.depth - 1) : 0),
      adapter_scale_(config.moe.adapter_scale),
      adapter_first_(config.pool == Pool::token ? 1 : 0),
      norm1_(config.width, config.norm_eps),
      attn_({.width = config.width, .heads = config.heads, .qk_norm = config.qk_norm, .mask = mask, .eps = config.norm_eps}),
      ls1_(config.width, config.layer_scale),
      norm2_(config.width, config.norm_eps),
      ls2_(config.width, config.layer_scale) {
  const bool routed = config.moe.layer == ExpertLayer::routed;
  if (with_experts && routed) moe_.emplace(config, id);
  if (with_experts && !routed) cp_.emplace(config, id);
  if (!with_experts || config.moe.adapter > 0)
    mlp_.emplace(config.width, static_cast<int64_t>(config.mlp_ratio * static_cast<double>(config.width)), config.activation);
}

Variable VitBlock::branch(const ExecContext& ctx, Variable y, LayerScale& scale, uint64_t id) {
  y = dropout(ctx, y, dropout_, ctx.rng.fold(2 * id));
  y = scale.forward(ctx, y);
  return stochastic_depth(ctx, y, drop_path_, ctx.rng.fold(2 * id + 1));
}

Residual VitBlock::forward(const ExecContext& ctx, Residual in, ForwardPass& pass, PinnedSelection& pinned) {
  const auto [x, tokens] = norm1_.forward(ctx, std::exchange(in, {}));  // nobody needs the branch's memory any more
  const AttentionOutput attended = attn_.forward(ctx, tokens);
  const auto [h, normed] = norm2_.forward(ctx, {x, branch(ctx, attended.y, ls1_, 1)});
  const Variable context = context_of(ctx, tokens, attended);
  const Residual out{h, branch(ctx, feed_forward(ctx, normed, context, pass, pinned), ls2_, 2)};
  return moe_ && mlp_ ? add_experts(ctx, out.sum(ctx), context, pass, pinned) : out;
}

Variable VitBlock::feed_forward(const ExecContext& ctx, const Variable& normed, const Variable& context, ForwardPass& pass,
                                PinnedSelection& pinned) {
  if (mlp_) return mlp_->forward(ctx, normed);
  if (moe_) return moe_->forward(ctx.with_rng(ctx.rng.fold(7)), normed, context, pass, pinned);
  Tensor mean;
  Variable y = cp_->forward(ctx, normed, mean);
  if (!std::exchange(pinned.made, true)) pass.mixtures.emplace_back(cp_->block(), mean);  // once, also where a block is recomputed
  return y;
}

/// What the block's router reads beside its tokens; undefined where it reads nothing.
Variable VitBlock::context_of(const ExecContext& ctx, const Variable& tokens, const AttentionOutput& attended) {
  if (!moe_ || !moe_->wants_context()) return {};
  return moe_->context() == Context::attention ? attended.y : attention_mean(ctx, attended.qkv, tokens, attn_.heads);
}

/// h (B, T, D) -> h + α experts(h). They have no say in the class token: what is added to it is zero.
Residual VitBlock::add_experts(const ExecContext& ctx, const Variable& h, const Variable& context, ForwardPass& pass,
                               PinnedSelection& pinned) {
  const int64_t first = adapter_first_;
  const auto patches = [&](const Variable& v) { return v.defined() && first > 0 ? skip_tokens(ctx, v, first) : v; };
  Variable y = moe_->forward(ctx.with_rng(ctx.rng.fold(7)), patches(h), patches(context), pass, pinned);
  if (adapter_scale_ != 1) y = scale(ctx, y, adapter_scale_);
  if (first == 0) return {h, y};
  const Tensor nothing = ctx.empty({1, first, h.shape()[2]}, h.dtype());
  fill(nothing, 0);
  return {h, concat_tokens(ctx, Variable(nothing), y)};
}

void VitBlock::init(const ExecContext& ctx, RngKey key) {
  norm1_.init();
  attn_.init(key);
  ls1_.init();
  norm2_.init();
  if (mlp_) mlp_->init(key);
  if (moe_) moe_->init(ctx, key);
  if (cp_) cp_->init(key);
  ls2_.init();
}

void VitBlock::visit(const std::string& prefix, const Visitor& visitor) {
  norm1_.visit(join(prefix, "norm1"), visitor);
  attn_.visit(join(prefix, "attn"), visitor);
  ls1_.visit(join(prefix, "ls1"), visitor);
  norm2_.visit(join(prefix, "norm2"), visitor);
  if (mlp_) mlp_->visit(join(prefix, "mlp"), visitor);
  if (moe_) moe_->visit(join(prefix, "moe"), visitor);
  if (cp_) cp_->visit(join(prefix, "cp"), visitor);
  ls2_.visit(join(prefix, "ls2"), visitor);
}

Blocks::Blocks(const VitConfig& config, AttentionMask mask, int64_t first_id, int64_t first_depth)
    : recompute_(config.recompute), first_depth_(first_depth) {
  const std::vector<int64_t> with_experts = moe_blocks(config.moe.layers, config.depth);
  for (int64_t i = 0; i < config.depth; ++i)
    blocks_.push_back(std::make_unique<VitBlock>(config, i, first_id + i, std::ranges::binary_search(with_experts, i), mask));
}

Residual Blocks::run(const ExecContext& ctx, size_t i, Residual x, ForwardPass& pass) {
  VitBlock& block = *blocks_[i];
  const ExecContext own = ctx.with_rng(ctx.rng.fold(100 + i));
  if (!recompute_ || ctx.tape == nullptr) {
    PinnedSelection pinned;
    return block.forward(own, std::move(x), pass, pinned);
  }
  auto pinned = std::make_shared<PinnedSelection>();
  const auto again = [&block, &pass, pinned](const ExecContext& c, std::span<const Variable> in) {
    return block.forward(c, {in[0], {}}, pass, *pinned).sum(c);
  };
  return {recompute(own, again, {x.sum(own)}), {}};
}

Variable Blocks::forward(const ExecContext& ctx, Variable x, ForwardPass& pass) {
  Residual stream{std::move(x), {}};
  for (size_t i = 0; i < blocks_.size(); ++i) {
    if (ctx.tape != nullptr && pass.gradients_ready)
      ctx.tape->when_reached([ready = pass.gradients_ready, depth = first_depth_ + static_cast<int64_t>(i)] { ready(depth); });
    stream = run(ctx, i, std::move(stream), pass);
  }
  return stream.sum(ctx);
}

std::vector<MoeLayer*> Blocks::moe_layers() {
  std::vector<MoeLayer*> layers;
  for (auto& block : blocks_)
    if (block->moe() != nullptr) layers.push_back(block->moe());
  return layers;
}

std::vector<CpLayer*> Blocks::cp_layers() {
  std::vector<CpLayer*> layers;
  for (auto& block : blocks_)
    if (block->cp() != nullptr) layers.push_back(block->cp());
  return layers;
}

void Blocks::init(const ExecContext& ctx, RngKey key) {
  for (auto& block : blocks_) block->init(ctx, key);
}

void Blocks::visit(const std::string& prefix, const Visitor& visitor) {
  for (size_t i = 0; i < blocks_.size(); ++i) blocks_[i]->visit(join(prefix, std::to_string(i)), visitor);
}

}  // namespace ermoe
