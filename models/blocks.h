// The blocks of a transformer, pre-norm, named and laid out as timm's, with mixture-of-experts layers in place of the MLP where the
// configuration says so: what an image tower and a text tower have in common. Read next: models/moe.h.
#pragma once

#include "models/cp_layer.h"
#include "models/layers.h"
#include "models/moe.h"

#include <memory>
#include <optional>
#include <vector>

namespace ermoe {

/// x + attention, then x + MLP or experts. Dropout after each branch, stochastic depth around it. With moe.adapter the MLP stays, and
/// experts add to what the block makes: h + α experts(h), of all tokens but the class token. With moe.layer cp experts are mixed.
class VitBlock final : public Module {
 public:
  /// The block `index` of those that `config` describes; its experts go by the number `id`.
  VitBlock(const VitConfig& config, int64_t index, int64_t id, bool with_experts, AttentionMask mask);

  /// x (B, T, D) -> (B, T, D), whose last addition is left to whoever reads it. `ctx.rng` is this block's key.
  Residual forward(const ExecContext& ctx, Residual x, ForwardPass& pass, PinnedSelection& pinned);

  MoeLayer* moe() { return moe_ ? &*moe_ : nullptr; }
  CpLayer* cp() { return cp_ ? &*cp_ : nullptr; }
  void init(const ExecContext& ctx, RngKey key);
  void visit(const std::string& prefix, const Visitor& visitor) override;

 private:
  Variable branch(const ExecContext& ctx, Variable y, LayerScale& scale, uint64_t id);
  Variable feed_forward(const ExecContext& ctx, const Variable& normed, const Variable& context, ForwardPass& pass,
                        PinnedSelection& pinned);
  Variable context_of(const ExecContext& ctx, const Variable& tokens, const AttentionOutput& attended);
  Residual add_experts(const ExecContext& ctx, const Variable& h, const Variable& context, ForwardPass& pass, PinnedSelection& pinned);

  double dropout_, drop_path_;
  double adapter_scale_;   // α of experts beside the MLP
  int64_t adapter_first_;  // first token that they see
  LayerNorm norm1_;
  SelfAttention attn_;
  LayerScale ls1_;
  LayerNorm norm2_;
  std::optional<Mlp> mlp_;
  std::optional<MoeLayer> moe_;
  std::optional<CpLayer> cp_;
  LayerScale ls2_;
};

/// All blocks of a tower, one after the other.
class Blocks final : public Module {
 public:
  /// As width, depth, heads, experts and so on of `config` say; `mask` is what their attention sees. Their experts' layers have the numbers
  /// from `first_id` on, and gradients of block i are ready at the depth `first_depth` + i.
  Blocks(const VitConfig& config, AttentionMask mask, int64_t first_id, int64_t first_depth);

  /// x (B, T, D) -> (B, T, D). Where inputs alone are kept (VitConfig::recompute), `pass` must outlive the way back.
  Variable forward(const ExecContext& ctx, Variable x, ForwardPass& pass);

  std::vector<MoeLayer*> moe_layers();
  std::vector<CpLayer*> cp_layers();
  void init(const ExecContext& ctx, RngKey key);
  /// "0", "1", …
  void visit(const std::string& prefix, const Visitor& visitor) override;

 private:
  Residual run(const ExecContext& ctx, size_t i, Residual x, ForwardPass& pass);

  bool recompute_;
  int64_t first_depth_;
  std::vector<std::unique_ptr<VitBlock>> blocks_;
};

}  // namespace ermoe
