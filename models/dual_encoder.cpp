#include "models/dual_encoder.h"

#include "ops/at_most.h"
#include "ops/l2_normalize.h"
#include "ops/scale.h"

#include <cmath>
#include <utility>

namespace ermoe {
namespace {

constexpr double shortest = 1e-12;  // of a feature's length, which it is divided by

/// What a name says behind a tower's prefix, if it has that.
bool in_tower(const std::string& name, const char* tower, std::string& rest) {
  if (!name.starts_with(tower)) return false;
  rest = name.substr(std::string(tower).size());
  return true;
}

}  // namespace

VitConfig image_tower(const DualConfig& config) {
  VitConfig image = config.image;
  check_input(image.pool != Pool::flatten,
              "model.pool: flatten has weights for each place, and no features that a text could be compared with");
  check_input(image.dimensions == 2, "model.dimensions: texts are compared with images (2), not with volumes");
  image.head = Head::projection;
  image.classes = config.retrieval.projection;
  return image;
}

DualEncoder::DualEncoder(const DualConfig& config, PairLossFn loss)
    : config_(config),
      loss_(std::move(loss)),
      image_(image_tower(config)),
      text_(config.image, config.text, config.retrieval.projection, config.image.depth, image_.last_depth() + 1) {
  log_scale_.shape = bias_.shape = {1};
  log_scale_.full_precision = bias_.full_precision = true;
}

void DualEncoder::init(const ExecContext& ctx, RngKey key) {
  image_.init_values(ctx, key);
  text_.init(ctx, key);
  fill(log_scale_.value, with_bias() ? std::log(10.0) : std::log(1 / 0.07));
  if (with_bias()) fill(bias_.value, -10);
  refresh(ctx);
}

Variable DualEncoder::image_features(const ExecContext& ctx, const Variable& images, ForwardPass& pass) {
  refresh_if_stale(ctx);
  return l2_normalize(ctx, image_.forward(ctx, images, pass), shortest);
}

Variable DualEncoder::text_features(const ExecContext& ctx, const Tensor& tokens, ForwardPass& pass) {
  refresh_if_stale(ctx);
  const Tensor allow = std::exchange(pass.allow, {});
  const ClosedTokens closed = pass.closed;
  const Variable features = text_.forward(ctx.with_rng(ctx.rng.fold(2)), tokens, pass);
  pass.allow = allow;
  pass.closed = closed;
  return l2_normalize(ctx, features, shortest);
}

Pairs DualEncoder::pairs(const ExecContext& ctx, const Tensor& images, const Tensor& tokens, ForwardPass& pass) {
  const Variable image = image_features(ctx, Variable(images), pass);
  return compared(image, text_features(ctx, tokens, pass));
}

Pairs DualEncoder::compared(const Variable& image, const Variable& text) {
  return {.image = image, .text = text, .log_scale = Variable(log_scale_), .bias = with_bias() ? Variable(bias_) : Variable()};
}

Variable DualEncoder::loss_of(const ExecContext& ctx, const Variable& image, const Variable& text) {
  check(static_cast<bool>(loss_), "[dual_encoder] has no loss to train by");
  return loss_(ctx, compared(image, text));
}

Variable DualEncoder::loss(const ExecContext& ctx, const MicroBatch& batch, const TargetLoss&, ForwardPass& pass) {
  check(static_cast<bool>(loss_), "[dual_encoder] has no loss to train by");
  return loss_(ctx, pairs(ctx, batch.images, batch.tokens, pass));
}

void DualEncoder::run(const ExecContext& ctx, const ModelInput& input, ForwardPass& pass) { pairs(ctx, input.images, input.tokens, pass); }

/// min(x, ln 100), then max(that, 0) as the negative of a minimum; on the device, for nobody may look while a step is recorded.
void DualEncoder::after_step(const ExecContext& ctx) {
  Model::after_step(ctx);
  const ExecContext plain = ctx.with_tape(nullptr);
  const Variable low = scale(plain, at_most(plain, Variable(log_scale_.value), most_log_scale), -1);
  convert(scale(plain, at_most(plain, low, 0), -1).value, log_scale_.value);
}

std::vector<MoeLayer*> DualEncoder::moe_layers() {
  std::vector<MoeLayer*> layers = image_.moe_layers();
  for (MoeLayer* layer : text_.moe_layers()) layers.push_back(layer);
  return layers;
}

int64_t DualEncoder::depth_of(const std::string& name) const {
  std::string rest;
  if (in_tower(name, "image.", rest)) return image_.depth_of(rest);
  if (in_tower(name, "text.", rest)) return first_text_depth() + text_.depth_of(rest);
  return last_depth();
}

int64_t DualEncoder::depth_of_block(int64_t block) const {
  const int64_t L = config_.image.depth;
  return block < L ? image_.depth_of_block(block) : first_text_depth() + 1 + (block - L);
}

std::string DualEncoder::name_of_block(int64_t block) const {
  const int64_t L = config_.image.depth;
  return block < L ? "image.blocks." + std::to_string(block) : "text.blocks." + std::to_string(block - L);
}

int64_t DualEncoder::layers_above(const std::string& name) const {
  std::string rest;
  if (in_tower(name, "image.", rest)) return image_.layers_above(rest);
  if (in_tower(name, "text.", rest)) return text_.last_depth() - text_.depth_of(rest);
  return 0;
}

void DualEncoder::visit(const std::string& prefix, const Visitor& visitor) {
  image_.visit(join(prefix, "image"), visitor);
  text_.visit(join(prefix, "text"), visitor);
  visitor(join(prefix, "logit_scale"), log_scale_);
  if (with_bias()) visitor(join(prefix, "logit_bias"), bias_);
}

}  // namespace ermoe
