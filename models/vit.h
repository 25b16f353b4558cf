// The vision transformer (Dosovitskiy et al., arXiv 2010.11929), pre-norm, named and laid out as timm's: patches, blocks, a head.
// Read next: models/blocks.h.
#pragma once

#include "models/blocks.h"
#include "models/model.h"

#include <string>
#include <vector>

namespace ermoe {

class Vit final : public Model {
 public:
  /// Throws InputError that names the key where the sizes cannot work.
  explicit Vit(const VitConfig& config);

  void init(const ExecContext& ctx, RngKey key) override;
  /// The same in a model that this is a tower of, which then refreshes all that is made from values.
  void init_values(const ExecContext& ctx, RngKey key);

  /// With model.center_input, after init and before move_to: what is taken off every input, `mean` (C, S, S) or (C, S, S, S) in the model's
  /// dtype. A `deviation` of what is left then scales the patches' weights, so that tokens begin at a size of about 1; 0 leaves them.
  void center_inputs(const Tensor& mean, double deviation);

  /// images (B, C, S, S), or volumes (B, C, S, S, S) whose sides may differ -> logits (B, Y).
  Variable forward(const ExecContext& ctx, const Variable& images, ForwardPass& pass);
  Variable loss(const ExecContext& ctx, const MicroBatch& batch, const TargetLoss& loss, ForwardPass& pass) override;
  void run(const ExecContext& ctx, const ModelInput& input, ForwardPass& pass) override;

  const VitConfig& config() const { return config_; }
  const MoeConfig& experts() const override { return config_.moe; }
  std::vector<MoeLayer*> moe_layers() override { return blocks_.moe_layers(); }
  std::vector<CpLayer*> cp_layers() override { return blocks_.cp_layers(); }
  int64_t tokens() const { return prefix_tokens() + grid_.numel(); }
  const Shape& grid() const override { return grid_; }
  /// Tokens in front of the patches: 1 with a class token, else 0.
  int64_t prefix_tokens() const { return config_.pool == Pool::token ? 1 : 0; }
  /// Those that routers see: all, but with moe.adapter the patches alone.
  int64_t routed_prefix_tokens() const { return config_.moe.adapter > 0 ? 0 : prefix_tokens(); }
  int64_t routed_tokens() const { return routed_prefix_tokens() + grid_.numel(); }
  /// 0 embeddings, 1 … L blocks, L + 1 final norm and head.
  int64_t depth_of(const std::string& name) const override;
  int64_t depth_of_block(int64_t block) const override { return 1 + block; }
  std::string name_of_block(int64_t block) const override { return "blocks." + std::to_string(block); }
  int64_t last_depth() const override { return config_.depth + 1; }
  int64_t layers_above(const std::string& name) const override { return last_depth() - depth_of(name); }
  void visit(const std::string& prefix, const Visitor& visitor) override;

  // Public, since a model that this is a tower of calls them.
  void allocate_constants(const ExecContext& ctx, DType dtype) override;
  void move_constants(const ExecContext& ctx, DType compute) override;

 private:
  Variable embed(const ExecContext& ctx, const Variable& images);
  Variable read_out(const ExecContext& ctx, const Variable& x);

  VitConfig config_;
  Shape grid_;
  Linear patch_embed_;   // weight (D, C, P, P[, P]), each side longer by two margins
  Buffer input_shift_;   // (1, C, S, S[, S]) of centred inputs: - their mean
  Parameter cls_token_;  // (1, 1, D)
  Parameter pos_embed_;  // (1, T, D) where positions are learned
  Tensor sincos_;        // (1, T, D) where they are not: a constant, not a parameter
  LayerNorm pre_norm_;   // "norm_pre", where the configuration wants it
  Blocks blocks_;
  LayerNorm norm_;  // "norm", or "fc_norm" behind average pooling, as timm has it
  Linear head_;     // weight (Y, D); (Y, T D) where it reads all tokens side by side
};

/// Sine-cosine positions (1, prefix + patches, D) of a grid with n sides, zero for prefix tokens. D falls into n even parts,
/// one a side in the grid's order (rows, columns); a part is the sines, then the cosines, of the place along that side
/// at D/2n frequencies from 1 down to nearly 1/10000. D must be a multiple of 2n.
void fill_sincos(const Tensor& positions, int64_t prefix, const Shape& grid);

}  // namespace ermoe
