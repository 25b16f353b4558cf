#include "tools/bench/workload.h"

#include "core/enum_names.h"
#include "models/config_rules.h"
#include "models/task_loss.h"
#include "tools/model_choice.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace ermoe {
namespace {

struct ImageSizes {
  Workload workload;
  int64_t dimensions, side, channels, patch, width, heads, depth, classes;
};

constexpr ImageSizes images_of[] = {
    {Workload::c10, 2, 32, 3, 4, 384, 6, 12, 10},        {Workload::s16, 2, 224, 3, 16, 384, 6, 12, 1000},
    {Workload::b16, 2, 224, 3, 16, 768, 12, 12, 1000},   {Workload::ba, 3, 128, 1, 16, 768, 12, 12, 1},
    {Workload::clip, 2, 224, 3, 16, 768, 12, 12, 1000},  // no classes: the projection stands there
    {Workload::clip_tiny, 2, 32, 3, 16, 32, 2, 2, 1000},
};

struct TextSizes {
  Workload workload;
  int64_t vocabulary, context, width, heads, depth, projection;
};

constexpr TextSizes texts_of[] = {
    {Workload::clip, 49408, 77, 512, 8, 12, 512},
    {Workload::clip_tiny, 100, 9, 16, 2, 2, 16},
};

const TextSizes* texts(Workload workload) {
  const auto* found = std::ranges::find(texts_of, workload, &TextSizes::workload);
  return found == std::end(texts_of) ? nullptr : found;
}

RouterKind router_of(BenchLayer layer) { return parse_enum<RouterKind>(enum_name(layer)).value_or(RouterKind::ermoe); }

uint64_t number_of(const Engine& engine) { return static_cast<uint64_t>(engine.ctx.comm->rank()); }

Tensor made_images(const Engine& engine, const VitConfig& model, int64_t count) {
  const Tensor images = engine.host_ctx().empty(input_shape(model, count), DType::f32, "batch");
  fill_normal(images, 1.0, RngKey{2}.fold(number_of(engine)));
  return on_device_of(engine.ctx, images);
}

/// Random tokens all through the context, for the padding behind an end token costs as much; the end is anywhere behind the second place.
Tensor made_captions(const Engine& engine, const TextConfig& text, int64_t count) {
  const RngKey key = RngKey{5}.fold(number_of(engine));
  const Tensor tokens = engine.host_ctx().empty({count, text.context}, DType::i32, "batch");
  int32_t* const to = tokens.data<int32_t>();
  const auto words = static_cast<uint64_t>(text.end_token - 1), places = static_cast<uint64_t>(text.context - 2);
  for (int64_t i = 0; i < tokens.numel(); ++i) to[i] = 1 + static_cast<int32_t>(uniform_int(key, static_cast<uint64_t>(i), words));
  for (int64_t b = 0; b < count; ++b) {
    const auto end = 2 + static_cast<int64_t>(uniform_int(key.fold(1), static_cast<uint64_t>(b), places));
    to[b * text.context + end] = static_cast<int32_t>(text.end_token);
  }
  return on_device_of(engine.ctx, tokens);
}

BenchTask task_of_classes(const Engine& engine, const VitConfig& config, int64_t images) {
  auto model = std::make_unique<Vit>(config);
  LossConfig loss;
  if (config.dimensions == 3) loss.kind = LossKind::l1;
  const ModelSummary cost = summarize(*model);
  return {.model = std::move(model),
          .cost = cost,
          .loss = TaskLoss(engine.ctx, loss, config.classes, DType::f32),
          .batch = {.images = made_images(engine, config, images),
                    .targets = on_device_of(engine.ctx, made_targets(engine.host_ctx(), loss, config.classes, images))}};
}

BenchTask task_of_pairs(const Engine& engine, const DualConfig& config, int64_t images) {
  auto model = std::make_unique<DualEncoder>(config, pair_loss(config.retrieval.loss));
  const ModelSummary cost = summarize(*model);
  return {.model = std::move(model),
          .cost = cost,
          .loss = {},  // the model's own
          .batch = {.images = made_images(engine, config.image, images),
                    .targets = {},
                    .allow = {},
                    .tokens = made_captions(engine, config.text, images)}};
}

}  // namespace

int64_t batch_of(Workload workload, int64_t asked) {
  if (asked > 0) return asked;
  if (workload == Workload::clip) return 256;
  return workload == Workload::ba ? 32 : 16;
}

VitConfig workload_model(const WorkloadOptions& options) {
  const ImageSizes& sizes = *std::ranges::find(images_of, options.workload, &ImageSizes::workload);
  VitConfig model;
  model.dimensions = sizes.dimensions;
  model.image_size = sizes.side;
  model.channels = sizes.channels;
  model.patch = sizes.patch;
  model.width = sizes.width;
  model.heads = sizes.heads;
  model.depth = sizes.depth;
  model.classes = sizes.classes;
  model.moe.layers = options.layer == BenchLayer::dense ? "none" : "every:2";
  model.moe.router = router_of(options.layer);
  model.moe.orthogonality = options.orthogonality;
  // Routing by the context, as the paper has it: of all the dearest, and what tools/torch_layer.py, tools/torch_clip_peer.py and published
  // figures have.
  model.moe.basis = Basis::leading;
  model.moe.score = Score::context_cosine;
  model.moe.combine = Combine::normalized;
  if (model.moe.router != RouterKind::ermoe) {
    model.moe.expert = ExpertKind::plain;
    model.moe.basis = Basis::untied;
  }
  return model;
}

DualConfig workload_towers(const WorkloadOptions& options) {
  const TextSizes* const sizes = texts(options.workload);
  check(sizes != nullptr, "[workload] {} has no text tower", enum_name(options.workload));
  DualConfig towers;
  towers.image = workload_model(options);
  towers.text.vocabulary = sizes->vocabulary;
  towers.text.end_token = sizes->vocabulary - 1;
  towers.text.context = sizes->context;
  towers.text.width = sizes->width;
  towers.text.heads = sizes->heads;
  towers.text.depth = sizes->depth;
  towers.retrieval.projection = sizes->projection;
  return towers;
}

bool has_text(Workload workload) { return texts(workload) != nullptr; }

BenchTask make_task(const Engine& engine, const WorkloadOptions& options, int64_t images) {
  if (has_text(options.workload)) return task_of_pairs(engine, workload_towers(options), images);
  return task_of_classes(engine, workload_model(options), images);
}

}  // namespace ermoe
