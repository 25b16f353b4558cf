#include "models/vit.h"

#include "autograd/recompute.h"
#include "models/config_rules.h"
#include "ops/add.h"
#include "ops/attention_mean.h"
#include "ops/cast.h"
#include "ops/dropout.h"
#include "ops/patch_embed.h"
#include "ops/scale.h"
#include "ops/tokens.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace ermoe {

VitBlock::VitBlock(const VitConfig& config, int64_t index, bool with_experts)
    : dropout_(config.dropout),
      drop_path_(config.depth > 1 ? config.drop_path * static_cast<double>(index) / static_cast<double>(config.depth - 1) : 0),
      adapter_scale_(config.moe.adapter_scale),
      adapter_first_(config.pool == Pool::token ? 1 : 0),
      norm1_(config.width),
      attn_(config.width, config.heads, config.qk_norm),
      ls1_(config.width, config.layer_scale),
      norm2_(config.width),
      ls2_(config.width, config.layer_scale) {
  const bool routed = config.moe.layer == ExpertLayer::routed;
  if (with_experts && routed) moe_.emplace(config, index);
  if (with_experts && !routed) cp_.emplace(config, index);
  if (!with_experts || config.moe.adapter > 0)
    mlp_.emplace(config.width, static_cast<int64_t>(config.mlp_ratio * static_cast<double>(config.width)));
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

Vit::Vit(const VitConfig& config) : config_(config), patch_embed_(1, 1), norm_(config.width), head_(config.width, config.classes) {
  check_model(config);
  grid_ = patch_grid(config);
  check_input(grid_.numel() > 0 && config.channels > 0 && config.classes > 0,
              "model.image_size, model.channels and model.classes must be known");
  const int64_t D = config.width;
  patch_embed_.weight.shape = patch_weight_shape(config);
  patch_embed_.bias.shape = {D};
  if (config.center_input) input_shift_.shape = input_shape(config, 1);
  cls_token_.shape = {1, 1, D};
  if (config.pool == Pool::flatten) head_.weight.shape = {config.classes, tokens() * D};
  head_.weight.full_precision = head_.bias.full_precision = true;
  pos_embed_.shape = {1, tokens(), D};
  const std::vector<int64_t> with_experts = moe_blocks(config.moe.layers, config.depth);
  for (int64_t i = 0; i < config.depth; ++i)
    blocks_.push_back(std::make_unique<VitBlock>(config, i, std::ranges::binary_search(with_experts, i)));
}

void Vit::allocate(const ExecContext& ctx, DType dtype) {
  arena_ = std::make_unique<ParameterArena>(*ctx.allocator, dtype, parameters_of(*this));
  if (config_.positions == Positions::sincos) {
    sincos_ = Tensor::zeros(*ctx.allocator, {1, tokens(), config_.width}, dtype, "buffers");
    fill_sincos(sincos_, prefix_tokens(), grid_);
  }
  for (Buffer* b : buffers_of(*this)) b->value = Tensor::zeros(*ctx.allocator, b->shape, dtype, "buffers");
  bundle_matrices();
}

void Vit::move_to(const ExecContext& ctx, DType compute, GradWrites writes) {
  const std::unique_ptr<ParameterArena> old = std::move(arena_);
  const std::vector<Parameter*> parameters = parameters_of(*this);
  std::vector<Tensor> values;
  for (Parameter* p : parameters) {
    values.push_back(std::exchange(p->value, {}));
    p->compute = {};
  }
  share_out(ctx);
  for (Parameter* p : parameters_of(*this)) p->depth = depth_of(p->name);
  arena_ = std::make_unique<ParameterArena>(*ctx.allocator, old->dtype(), compute, parameters_of(*this), writes, FactorGroup::most_elements,
                                            ctx.comm->size());
  for (size_t i = 0; i < parameters.size(); ++i) {
    const Parameter& p = *parameters[i];
    if (p.role == Parameter::Role::derived || p.shape.numel() == 0) continue;
    const bool cut = values[i].shape() != p.shape;  // the first time
    copy(cut ? values[i].slice(p.expert_offset, p.expert_offset + p.shape[0]) : values[i], p.value);
  }
  if (sincos_.defined()) {
    const Tensor narrow = Tensor::empty(sincos_.allocator(), sincos_.shape(), compute, "buffers");
    convert(sincos_, narrow);
    sincos_ = narrow.to(*ctx.allocator, "buffers");
  }
  for (Buffer* b : buffers_of(*this)) b->value = b->value.to(*ctx.allocator, "buffers");
  bundle_matrices();
  refresh(ctx);
}

/// Where several ranks share the experts, each keeps its part from here on.
void Vit::share_out(const ExecContext& ctx) {
  if (ctx.comm->size() == 1) return;
  for (MoeLayer* layer : moe_layers()) layer->share_out(share_experts(ctx, layer->dims().all()), ctx.replica_ranks->rank() == 0);
}

void Vit::init(const ExecContext& ctx, RngKey key) {
  const auto fan_in = static_cast<double>(patch_embed_.weight.shape.numel() / config_.width);
  fill_normal(patch_embed_.weight.value, std::sqrt(1.0 / fan_in), key_of(key, patch_embed_.weight.name));
  fill(patch_embed_.bias.value, 0);
  if (prefix_tokens() > 0) fill(cls_token_.value, 0);
  if (!sincos_.defined()) fill_normal(pos_embed_.value, 0.02, key_of(key, pos_embed_.name));
  for (auto& block : blocks_) block->init(ctx, key);
  norm_.init();
  fill(head_.weight.value, 0);  // every class equally likely at the start
  fill(head_.bias.value, 0);
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
  Variable x = patch_embed(ctx, cast(ctx, centred, arena_->compute_dtype()), patch_embed_.weight, patch_embed_.bias, config_.patch_margin);
  if (prefix_tokens() > 0) x = concat_tokens(ctx, cls_token_, x);
  const Variable positions = sincos_.defined() ? Variable(sincos_) : Variable(pos_embed_);
  return dropout(ctx, add_rows(ctx, x, positions), config_.dropout, ctx.rng.fold(1));
}

Residual Vit::run_block(const ExecContext& ctx, size_t i, Residual x, ForwardPass& pass) {
  VitBlock& block = *blocks_[i];
  const ExecContext own = ctx.with_rng(ctx.rng.fold(100 + i));
  if (!config_.recompute || ctx.tape == nullptr) {
    PinnedSelection pinned;
    return block.forward(own, std::move(x), pass, pinned);
  }
  auto pinned = std::make_shared<PinnedSelection>();
  const auto again = [&block, &pass, pinned](const ExecContext& c, std::span<const Variable> in) {
    return block.forward(c, {in[0], {}}, pass, *pinned).sum(c);
  };
  return {recompute(own, again, {x.sum(own)}), {}};
}

Variable Vit::forward(const ExecContext& ctx, const Variable& images, ForwardPass& pass) {
  refresh_if_stale(ctx);
  Residual stream{embed(ctx, images), {}};
  for (size_t i = 0; i < blocks_.size(); ++i) {
    if (ctx.tape != nullptr && pass.gradients_ready)
      ctx.tape->when_reached([ready = pass.gradients_ready, depth = static_cast<int64_t>(i) + 1] { ready(depth); });
    stream = run_block(ctx, i, std::move(stream), pass);
  }
  return read_out(ctx, stream.sum(ctx));
}

/// x (B, T, D) -> logits (B, Y). They are compared with each other: the head computes in the precision of its weights, which are f32 (or
/// f64) always.
Variable Vit::read_out(const ExecContext& ctx, const Variable& x) {
  if (config_.pool != Pool::flatten) {
    const Variable pooled = config_.pool == Pool::average ? mean_pool(ctx, x, 0) : select_token(ctx, x, 0);
    return head_.forward(ctx, cast(ctx, norm_.forward(ctx, pooled), arena_->dtype()));
  }
  const int64_t B = x.shape()[0], T = x.shape()[1], D = x.shape()[2];
  // As long as one token: T times as many weights would else move the logits T times as far a step.
  const Variable all = scale(ctx, norm_.forward(ctx, x), 1 / std::sqrt(static_cast<double>(T)));
  return head_.forward(ctx, cast(ctx, reshape(ctx, all, {B, T * D}), arena_->dtype()));
}

std::vector<MoeLayer*> Vit::moe_layers() {
  std::vector<MoeLayer*> layers;
  for (auto& block : blocks_)
    if (block->moe() != nullptr) layers.push_back(block->moe());
  return layers;
}

std::vector<CpLayer*> Vit::cp_layers() {
  std::vector<CpLayer*> layers;
  for (auto& block : blocks_)
    if (block->cp() != nullptr) layers.push_back(block->cp());
  return layers;
}

/// All first matrices, then all second ones: as the arena keeps them.
void Vit::bundle_matrices() {
  std::vector<FactoredMatrix> matrices;
  for (MoeLayer* layer : moe_layers())
    for (const FactoredMatrix& m : layer->experts().factored()) matrices.push_back(m);
  std::ranges::stable_sort(matrices, {}, [](const FactoredMatrix& m) { return last_part(m.w->name); });
  matrices_ = ermoe::bundle_matrices(*arena_, matrices);
}

size_t Vit::largest_made_bytes() const {
  size_t most = 0;
  for (const auto& bundle : matrices_) {
    size_t bytes = 0;
    for (const FactoredMatrix& m : bundle->members()) bytes += m.w->value.bytes();
    most = std::max(most, bytes);
  }
  return most;
}

void Vit::refresh(const ExecContext& ctx) {
  arena_->refresh_compute();
  refresh_derived(ctx);
}
void Vit::refresh_derived(const ExecContext& ctx) {
  stale_ = false;
  for (const auto& bundle : matrices_) bundle->refresh(ctx);
  for (MoeLayer* layer : moe_layers()) layer->refresh(ctx);
  const std::vector<GatheredParameter*> apart = gathered();
  ctx.comm->start([&] {
    for (GatheredParameter* p : apart) p->gather_held(ctx);
  });
  ctx.comm->start([&] {
    for (GatheredParameter* p : apart) p->gather_all(ctx);
  });
  ctx.comm->wait();
}
void Vit::pull_back(const ExecContext& ctx) {
  arena_->take_factor_gradients(*ctx.allocator);
  for (const auto& bundle : matrices_) bundle->pull_back(ctx);
  for (MoeLayer* layer : moe_layers()) layer->pull_back(ctx);
  std::vector<Parameter*> common;
  for (MoeLayer* layer : moe_layers()) {
    Parameter* const p = layer->router().common_factor();
    if (p == nullptr || p->frozen) continue;
    if (!p->has_grad) zero(p->grad);
    p->has_grad = true;
    common.push_back(p);
  }
  ctx.comm->start([&] {
    for (Parameter* p : common) ctx.comm->all_reduce(p->grad, ReduceOp::sum);
  });
  ctx.comm->wait();
  for (MoeLayer* layer : moe_layers()) layer->router().add_penalties(ctx);
}
void Vit::reduce_statistics(const ExecContext& ctx) {
  ctx.comm->start([&] {
    for (MoeLayer* layer : moe_layers()) layer->router().reduce_statistics(ctx);
  });
  ctx.comm->wait();
}

/// What ranks make for their own experts and gather.
std::vector<GatheredParameter*> Vit::gathered() {
  std::vector<GatheredParameter*> all;
  for (MoeLayer* layer : moe_layers())
    for (GatheredParameter* p : layer->gathered()) all.push_back(p);
  return all;
}
void Vit::after_step(const ExecContext& ctx) {
  for (MoeLayer* layer : moe_layers()) layer->after_step(ctx);
}
void Vit::accept_step(const ExecContext& ctx) {
  for (MoeLayer* layer : moe_layers()) layer->router().accept_step(ctx);
}
void Vit::discard_step() {
  for (MoeLayer* layer : moe_layers()) layer->router().discard_step();
}

void Vit::scale_learning_rates(const OptimConfig& config) {
  for (Parameter* p : arena_->parameters()) {
    const auto below = static_cast<double>(config_.depth + 1 - depth_of(p->name));
    p->lr_scale = static_cast<float>(std::pow(config.layer_decay, below) * (p->orthonormal ? config.factor_lr : 1));
  }
}

int64_t Vit::depth_of(const std::string& name) const {
  if (name.starts_with("blocks.")) return depth_of_block(std::stoll(name.substr(7)));
  return name.starts_with("norm") || name.starts_with("fc_norm") || name.starts_with("head") ? config_.depth + 1 : 0;
}

void Vit::visit(const std::string& prefix, const Visitor& visitor) {
  if (config_.center_input) visitor(join(prefix, "input_shift"), input_shift_);
  if (prefix_tokens() > 0) visitor(join(prefix, "cls_token"), cls_token_);
  if (config_.positions == Positions::learned) visitor(join(prefix, "pos_embed"), pos_embed_);
  patch_embed_.visit(join(prefix, "patch_embed.proj"), visitor);
  for (size_t i = 0; i < blocks_.size(); ++i) blocks_[i]->visit(join(prefix, "blocks." + std::to_string(i)), visitor);
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
