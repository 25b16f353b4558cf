#include "models/vit.h"

#include "models/config_rules.h"
#include "ops/add.h"
#include "ops/cast.h"
#include "ops/dropout.h"
#include "ops/patch_embed.h"
#include "ops/scale.h"
#include "ops/tokens.h"

#include <algorithm>
#include <cmath>

namespace ermoe {

namespace {

/// Before anything is made by it.
const VitConfig& checked(const VitConfig& config) {
  check_model(config);
  check_input(patch_grid(config).numel() > 0 && config.channels > 0 && config.classes > 0,
              "model.image_size, model.channels and model.classes must be known");
  return config;
}

}  // namespace

Vit::Vit(const VitConfig& config)
    : config_(checked(config)),
      grid_(patch_grid(config)),
      patch_embed_(1, 1),
      pre_norm_(config.width, config.norm_eps),
      blocks_(config, AttentionMask::none, 0, 1),
      norm_(config.width, config.norm_eps),
      head_(config.width, config.classes, config.head == Head::classes ? Bias::on : Bias::off) {
  const int64_t D = config.width;
  patch_embed_.weight.shape = patch_weight_shape(config);
  patch_embed_.bias.shape = {D};
  patch_embed_.with_bias = config.patch_bias == PatchBias::on;
  if (config.center_input) input_shift_.shape = input_shape(config, 1);
  cls_token_.shape = {1, 1, D};
  if (config.pool == Pool::flatten) head_.weight.shape = {config.classes, tokens() * D};
  head_.weight.full_precision = head_.bias.full_precision = true;
  pos_embed_.shape = {1, tokens(), D};
}

void Vit::allocate_constants(const ExecContext& ctx, DType dtype) {
  if (config_.positions != Positions::sincos) return;
  sincos_ = Tensor::zeros(*ctx.allocator, {1, tokens(), config_.width}, dtype, "buffers");
  fill_sincos(sincos_, prefix_tokens(), grid_);
}

void Vit::move_constants(const ExecContext& ctx, DType compute) {
  if (!sincos_.defined()) return;
  const Tensor narrow = Tensor::empty(sincos_.allocator(), sincos_.shape(), compute, "buffers");
  convert(sincos_, narrow);
  sincos_ = narrow.to(*ctx.allocator, "buffers");
}

void Vit::init_values(const ExecContext& ctx, RngKey key) {
  const auto fan_in = static_cast<double>(patch_embed_.weight.shape.numel() / config_.width);
  fill_normal(patch_embed_.weight.value, std::sqrt(1.0 / fan_in), key_of(key, patch_embed_.weight.name));
  if (patch_embed_.with_bias) fill(patch_embed_.bias.value, 0);
  if (prefix_tokens() > 0) fill(cls_token_.value, 0);
  if (!sincos_.defined()) fill_normal(pos_embed_.value, 0.02, key_of(key, pos_embed_.name));
  if (config_.pre_norm) pre_norm_.init();
  blocks_.init(ctx, key);
  norm_.init();
  if (config_.head == Head::projection) {
    fill_normal(head_.weight.value, 1 / std::sqrt(static_cast<double>(config_.width)), key_of(key, head_.weight.name));
  } else {
    fill(head_.weight.value, 0);  // every class equally likely at the start
    fill(head_.bias.value, 0);
  }
}

void Vit::init(const ExecContext& ctx, RngKey key) {
  init_values(ctx, key);
  refresh(ctx);
}

void Vit::center_inputs(const Tensor& mean, double deviation) {
  check(config_.center_input && mean.numel() == input_shift_.value.numel() && mean.dtype() == input_shift_.value.dtype(),
        "[vit] a mean {} {} for inputs {}", name_of(mean.dtype()), mean.shape().str(), input_shift_.shape.str());
  const auto times = [](const Tensor& t, double factor, const Tensor& to) {
    dispatch_float(t.dtype(), "center_inputs", [&](auto tag) {
      using T = decltype(tag);
      std::transform(t.data<T>(), t.data<T>() + t.numel(), to.data<T>(), [&](T v) { return static_cast<T>(factor * v); });
    });
  };
  times(mean, -1, input_shift_.value);
  if (deviation > 0) times(patch_embed_.weight.value, 1 / deviation, patch_embed_.weight.value);
}

Variable Vit::embed(const ExecContext& ctx, const Variable& images) {
  const Shape& s = images.shape();
  check(s.rank() > 0 && s == input_shape(config_, s[0]), "[vit] images {} but the model wants (B, {}, {})", s.str(), config_.channels,
        fmt::join(image_sides(config_), ", "));
  const Variable centred = config_.center_input ? add_rows(ctx, images, Variable(input_shift_.value)) : images;
  const Variable bias = patch_embed_.with_bias ? Variable(patch_embed_.bias) : Variable();
  Variable x = patch_embed(ctx, cast(ctx, centred, patch_embed_.weight.compute.dtype()), patch_embed_.weight, bias, config_.patch_margin);
  if (prefix_tokens() > 0) x = concat_tokens(ctx, cls_token_, x);
  const Variable positions = sincos_.defined() ? Variable(sincos_) : Variable(pos_embed_);
  x = dropout(ctx, add_rows(ctx, x, positions), config_.dropout, ctx.rng.fold(1));
  return config_.pre_norm ? pre_norm_.forward(ctx, x) : x;
}

Variable Vit::forward(const ExecContext& ctx, const Variable& images, ForwardPass& pass) {
  refresh_if_stale(ctx);
  return read_out(ctx, blocks_.forward(ctx, embed(ctx, images), pass));
}

Variable Vit::loss(const ExecContext& ctx, const MicroBatch& batch, const TargetLoss& loss, ForwardPass& pass) {
  return loss(ctx, forward(ctx, Variable(batch.images), pass), batch.targets);
}

void Vit::run(const ExecContext& ctx, const ModelInput& input, ForwardPass& pass) { forward(ctx, Variable(input.images), pass); }

/// x (B, T, D) -> logits (B, Y). They are compared with each other: the head computes in the precision of its weights, which are f32 (or
/// f64) always.
Variable Vit::read_out(const ExecContext& ctx, const Variable& x) {
  if (config_.pool != Pool::flatten) {
    const Variable pooled = config_.pool == Pool::average ? mean_pool(ctx, x, 0) : select_token(ctx, x, 0);
    return head_.forward(ctx, cast(ctx, norm_.forward(ctx, pooled), head_.weight.value.dtype()));
  }
  const int64_t B = x.shape()[0], T = x.shape()[1], D = x.shape()[2];
  // As long as one token: T times as many weights would else move the logits T times as far a step.
  const Variable all = scale(ctx, norm_.forward(ctx, x), 1 / std::sqrt(static_cast<double>(T)));
  return head_.forward(ctx, cast(ctx, reshape(ctx, all, {B, T * D}), head_.weight.value.dtype()));
}

int64_t Vit::depth_of(const std::string& name) const {
  if (name.starts_with("blocks.")) return depth_of_block(std::stoll(name.substr(7)));
  if (name.starts_with("norm_pre")) return 0;
  return name.starts_with("norm") || name.starts_with("fc_norm") || name.starts_with("head") ? config_.depth + 1 : 0;
}

void Vit::visit(const std::string& prefix, const Visitor& visitor) {
  if (config_.center_input) visitor(join(prefix, "input_shift"), input_shift_);
  if (prefix_tokens() > 0) visitor(join(prefix, "cls_token"), cls_token_);
  if (config_.positions == Positions::learned) visitor(join(prefix, "pos_embed"), pos_embed_);
  patch_embed_.visit(join(prefix, "patch_embed.proj"), visitor);
  if (config_.pre_norm) pre_norm_.visit(join(prefix, "norm_pre"), visitor);
  blocks_.visit(join(prefix, "blocks"), visitor);
  norm_.visit(join(prefix, config_.pool == Pool::average ? "fc_norm" : "norm"), visitor);
  head_.visit(join(prefix, "head"), visitor);
}

void fill_sincos(const Tensor& positions, int64_t prefix, const Shape& grid) {
  const int64_t D = positions.shape()[2], frequencies = D / (2 * grid.rank());
  dispatch_float(positions.dtype(), "sincos", [&](auto tag) {
    using T = decltype(tag);
    T* at = positions.data<T>();
    std::fill_n(at, positions.numel(), T(0));
    at += prefix * D;
    for (int64_t p = 0; p < grid.numel(); ++p, at += D)
      for (auto [axis, stride] = std::pair(grid.rank() - 1, int64_t{1}); axis >= 0; stride *= grid[axis], --axis) {
        const auto place = static_cast<double>(p / stride % grid[axis]);
        T* const part = at + 2 * axis * frequencies;
        for (int64_t i = 0; i < frequencies; ++i) {
          const double angle = place * std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(frequencies));
          part[i] = static_cast<T>(std::sin(angle));
          part[frequencies + i] = static_cast<T>(std::cos(angle));
        }
      }
  });
}

}  // namespace ermoe
