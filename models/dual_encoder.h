// A dual encoder: an image tower and a text tower whose features are compared by their cosine, for retrieval and for classes that are
// told by words. Trained as CLIP (Radford et al., arXiv 2103.00020) or SigLIP (Zhai et al., arXiv 2303.15343). Either tower may have
// experts. Its weights from files of others: models/clip_weights.h.
#pragma once

#include "models/model.h"
#include "models/text_tower.h"
#include "models/vit.h"

#include <functional>
#include <string>
#include <vector>

namespace ermoe {

struct DualConfig {
  VitConfig image;  // its classes and its kind of head are not read: the projection is its head
  TextConfig text;
  RetrievalConfig retrieval;
};

/// What a loss over pairs of images and texts reads. Row b of `image` and of `text` belong together.
struct Pairs {
  Variable image;      // (B, P) of length 1
  Variable text;       // (B, P) of length 1
  Variable log_scale;  // (1) ln of what cosines are multiplied by, f32 (or f64)
  Variable bias;       // (1) what SigLIP adds to that; undefined for info_nce
};

/// Scalar loss of the pairs of a micro-batch: by RetrievalConfig::loss one of ops/contrastive_loss.h.
using PairLossFn = std::function<Variable(const ExecContext&, const Pairs&)>;

class DualEncoder final : public Model {
 public:
  /// Largest logarithm of the scale of cosines.
  static constexpr double most_log_scale = 4.605170185988092;  // ln 100

  /// Throws InputError that names the key where the sizes cannot work. `loss` is what training minimises; without one it cannot train.
  explicit DualEncoder(const DualConfig& config, PairLossFn loss = {});

  void init(const ExecContext& ctx, RngKey key) override;

  /// images (B, C, S, S) -> (B, P), each of length 1. The pass's mask of experts goes to this tower.
  Variable image_features(const ExecContext& ctx, const Variable& images, ForwardPass& pass);
  /// tokens (B, W) i32, W at most text.context -> (B, P), each of length 1. Random numbers are not those of the image tower.
  Variable text_features(const ExecContext& ctx, const Tensor& tokens, ForwardPass& pass);
  /// Both of a micro-batch, an image and its caption in each row.
  Pairs pairs(const ExecContext& ctx, const Tensor& images, const Tensor& tokens, ForwardPass& pass);

  /// What training minimises, of features (B, P) as the above two make them.
  Variable loss_of(const ExecContext& ctx, const Variable& image, const Variable& text);
  /// Of the micro-batch's images and tokens; its targets and `loss` are not read.
  Variable loss(const ExecContext& ctx, const MicroBatch& batch, const TargetLoss& loss, ForwardPass& pass) override;
  void run(const ExecContext& ctx, const ModelInput& input, ForwardPass& pass) override;
  /// Beside what experts need: keeps the scale of cosines within [1, 100].
  void after_step(const ExecContext& ctx) override;

  const DualConfig& config() const { return config_; }
  Vit& image() { return image_; }
  TextTower& text() { return text_; }
  Parameter& log_scale() { return log_scale_; }
  const MoeConfig& experts() const override { return config_.image.moe; }
  /// The image tower's, then the text tower's: block i of the text has the number L + i behind L blocks of the image tower.
  std::vector<MoeLayer*> moe_layers() override;
  std::vector<CpLayer*> cp_layers() override { return image_.cp_layers(); }
  /// The image tower's depths, then the text tower's, which runs after it.
  int64_t depth_of(const std::string& name) const override;
  int64_t depth_of_block(int64_t block) const override;
  std::string name_of_block(int64_t block) const override;
  int64_t last_depth() const override { return first_text_depth() + text_.last_depth(); }
  int64_t layers_above(const std::string& name) const override;
  const Shape& grid() const override { return image_.grid(); }
  /// "image." and timm's names, "text." and the like, "logit_scale", "logit_bias".
  void visit(const std::string& prefix, const Visitor& visitor) override;

 protected:
  void allocate_constants(const ExecContext& ctx, DType dtype) override { image_.allocate_constants(ctx, dtype); }
  void move_constants(const ExecContext& ctx, DType compute) override { image_.move_constants(ctx, compute); }

 private:
  int64_t first_text_depth() const { return image_.last_depth() + 1; }
  Pairs compared(const Variable& image, const Variable& text);
  bool with_bias() const { return config_.retrieval.loss == PairLoss::sigmoid; }

  DualConfig config_;
  PairLossFn loss_;
  Vit image_;  // its head, without bias, is the projection
  TextTower text_;
  Parameter log_scale_;  // (1)
  Parameter bias_;       // (1), where the loss wants it
};

/// Settings of the image tower alone, as a dual encoder makes it.
VitConfig image_tower(const DualConfig& config);

}  // namespace ermoe
