// The text transformer of a dual encoder as CLIP has it (Radford et al., arXiv 2103.00020): causal attention, and the feature of a
// caption is that of the token which ends it. Read next: models/dual_encoder.h.
#pragma once

#include "models/blocks.h"

#include <string>
#include <vector>

namespace ermoe {

class TextTower final : public Module {
 public:
  /// `image`: what both towers share, experts among it (models/config_rules.h). Features have width `projection`. Experts' layers are
  /// numbered from `first_id` on; gradients of block i are ready at the depth `first_depth` + 1 + i. Throws InputError that names the
  /// key where the sizes cannot work or are still open.
  TextTower(const VitConfig& image, const TextConfig& text, int64_t projection, int64_t first_id, int64_t first_depth);

  /// tokens (B, W) i32, W at most the context -> features (B, P), not normalised. What follows a caption's first end token changes nothing:
  /// no statistics and no expert take it in. `pass` has the mask of that afterwards.
  Variable forward(const ExecContext& ctx, const Tensor& tokens, ForwardPass& pass);

  const TextConfig& config() const { return config_; }
  std::vector<MoeLayer*> moe_layers() { return blocks_.moe_layers(); }
  /// 0 embeddings, 1 … L blocks, L + 1 final norm and projection.
  int64_t depth_of(const std::string& name) const;
  int64_t last_depth() const { return config_.depth + 1; }
  void init(const ExecContext& ctx, RngKey key);
  void visit(const std::string& prefix, const Visitor& visitor) override;

 private:
  TextConfig config_;
  int64_t experts_;        // E; 0: no block has any
  Parameter token_embed_;  // (V, D)
  Parameter pos_embed_;    // (W, D)
  Blocks blocks_;
  LayerNorm norm_;
  Linear head_;  // weight (P, D)
};

}  // namespace ermoe
