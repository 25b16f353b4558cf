// The vision transformer (Dosovitskiy et al., arXiv 2010.11929), pre-norm, named and laid out as timm's, with
// mixture-of-experts layers in place of the MLP where the configuration says so. Read next: models/moe.h.
#pragma once

#include "autograd/memory/parameter_arena.h"
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
  VitBlock(const VitConfig& config, int64_t index, bool with_experts);

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

class Vit final : public Module {
 public:
  /// Throws InputError that names the key where the sizes cannot work.
  explicit Vit(const VitConfig& config);

  /// Gives every parameter and buffer its memory (dtype f32 or f64).
  void allocate(const ExecContext& ctx, DType dtype);
  /// Moves all of it to the context's device, and of the experts what is this rank's (models/expert_share.h). There ops
  /// compute in `compute` (f32 or bf16) from masters in f32. `writes`: how often a training step writes a gradient; `once` lets those
  /// of the experts' matrices be of `compute`.
  void move_to(const ExecContext& ctx, DType compute, GradWrites writes = GradWrites::many);
  /// The initial values; on the host.
  void init(const ExecContext& ctx, RngKey key);

  /// With model.center_input, after init and before move_to: what is taken off every input, `mean` (C, S, S) or (C, S, S, S) in the model's
  /// dtype. A `deviation` of what is left then scales the patches' weights, so that tokens begin at a size of about 1; 0 leaves them.
  void center_inputs(const Tensor& mean, double deviation);

  /// images (B, C, S, S), or volumes (B, C, S, S, S) whose sides may differ -> logits (B, Y).
  Variable forward(const ExecContext& ctx, const Variable& images, ForwardPass& pass);

  /// After parameters were set from outside: their bf16 copies and what is made from factors.
  void refresh(const ExecContext& ctx);

  // Hooks of the training step; each walks the MoE layers.
  /// What is made from factors. A step begins with it; elsewhere the next `forward` does it by itself where it must.
  void refresh_derived(const ExecContext& ctx);
  /// That, where factors changed since; of several ranks all call it, also where a rank has nothing to compute.
  void refresh_if_stale(const ExecContext& ctx) {
    if (stale_) refresh_derived(ctx);
  }
  /// The optimizer stepped the factors: what was made from them is out of date.
  void factors_changed() { stale_ = true; }
  /// Leads gradients of derived parameters on to their factors, whose gradients are then those of all ranks together. They have
  /// memory for theirs from here to the arena's next `begin_gradients`: from ctx's allocator.
  void pull_back(const ExecContext& ctx);
  /// Sums over ranks what routers collected.
  void reduce_statistics(const ExecContext& ctx);
  void after_step(const ExecContext& ctx);
  void accept_step(const ExecContext& ctx);
  void discard_step();

  /// Of the largest set of matrices that `refresh_derived` makes at once.
  size_t largest_made_bytes() const;

  const VitConfig& config() const { return config_; }
  ParameterArena& arena() { return *arena_; }
  /// Layers whose experts are routed to, and those whose experts are mixed.
  std::vector<MoeLayer*> moe_layers();
  std::vector<CpLayer*> cp_layers();
  /// What each rank makes for its own experts and all gather; nothing moves where one rank has all.
  std::vector<GatheredParameter*> gathered();
  int64_t tokens() const { return prefix_tokens() + grid_.numel(); }
  /// Patches along each side of an image or a volume.
  const Shape& grid() const { return grid_; }
  /// Tokens in front of the patches: 1 with a class token, else 0.
  int64_t prefix_tokens() const { return config_.pool == Pool::token ? 1 : 0; }
  /// Those that routers see: all, but with moe.adapter the patches alone.
  int64_t routed_prefix_tokens() const { return config_.moe.adapter > 0 ? 0 : prefix_tokens(); }
  int64_t routed_tokens() const { return routed_prefix_tokens() + grid_.numel(); }
  /// Sets each parameter's share of the learning rate: layer decay by depth (0 embeddings, 1 … L blocks, L + 1 final norm and head),
  /// and that of orthonormal factors. Before an optimizer is made.
  void scale_learning_rates(const OptimConfig& config);
  int64_t depth_of(const std::string& name) const;
  static int64_t depth_of_block(int64_t block) { return 1 + block; }
  void visit(const std::string& prefix, const Visitor& visitor) override;

 private:
  void share_out(const ExecContext& ctx);
  Variable embed(const ExecContext& ctx, const Variable& images);
  void bundle_matrices();
  Variable read_out(const ExecContext& ctx, const Variable& x);
  Residual run_block(const ExecContext& ctx, size_t i, Residual x, ForwardPass& pass);

  VitConfig config_;
  Shape grid_;
  Linear patch_embed_;   // weight (D, C, P, P[, P]), each side longer by two margins
  Buffer input_shift_;   // (1, C, S, S[, S]) of centred inputs: - their mean
  Parameter cls_token_;  // (1, 1, D)
  Parameter pos_embed_;  // (1, T, D) where positions are learned
  Tensor sincos_;        // (1, T, D) where they are not: a constant, not a parameter
  std::vector<std::unique_ptr<VitBlock>> blocks_;
  LayerNorm norm_;  // "norm", or "fc_norm" behind average pooling, as timm has it
  Linear head_;     // weight (Y, D); (Y, T D) where it reads all tokens side by side
  std::unique_ptr<ParameterArena> arena_;
  std::vector<std::unique_ptr<MatrixBundle>> matrices_;  // what experts' factors make
  bool stale_ = false;                                   // factors changed since the last refresh
};

/// Sine-cosine positions (1, prefix + patches, D) of a grid with n sides, zero for prefix tokens. D falls into n even parts,
/// one a side in the grid's order (rows, columns); a part is the sines, then the cosines, of the place along that side
/// at D/2n frequencies from 1 down to nearly 1/10000. D must be a multiple of 2n.
void fill_sincos(const Tensor& positions, int64_t prefix, const Shape& grid);

}  // namespace ermoe
