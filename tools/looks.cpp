#include "tools/looks.h"

#include "core/error.h"
#include "data/volume_grid.h"
#include "models/checkpoint_store.h"
#include "models/config_rules.h"
#include "models/regions.h"
#include "models/task_loss.h"
#include "tools/evaluation.h"
#include "tools/loaded_model.h"
#include "tools/occlusion.h"
#include "tools/run_folder.h"
#include "tools/volume_pipeline.h"

#include <algorithm>
#include <limits>

namespace ermoe {
namespace {

constexpr int64_t most_cubes = 600;  // above, cubes of two patches a side are covered
constexpr RngKey experts_key{50}, occlusion_key{51};

std::span<const float> row_of(const Tensor& all, int64_t i) {
  const int64_t each = all.numel() / all.shape()[0];
  return {all.data<float>() + i * each, static_cast<size_t>(each)};
}

/// One model with its data, and what it does with them.
class Looker {
 public:
  Looker(Engine& engine, const LooksOptions& options, const std::string& checkpoint, int threads, const WarnFn& note)
      : options_(options),
        ctx_(engine.ctx),
        model_(engine, checkpoint, note, options.precision == Precision::auto_ ? Precision::f32 : options.precision),
        config_(model_.config()) {
    check_input(config_.model.dimensions == 3 && is_regression(config_.loss.kind),
                "--looks is for models that predict a number from volumes, and {} does not", options.run);
    ctx_.mode = Mode::eval;
    fold_ = static_cast<int>(config_.data.folds > 0 ? config_.data.fold : 0);
    const bool foreign = take_other_data(config_, options.data);
    if (!options.regions.empty() && options.regions != config_.data.regions) {
      check_input(!has_regions(config_.model), "--regions: experts of {} are kept to the regions of {}, so they look at those", options.run,
                  config_.data.regions);
      config_.data.regions = options.regions;
    }
    if (options.batch > 0) config_.train.eval_batch = options.batch;
    pipeline_.emplace(config_, engine.staging, threads, note);
    model_.use_average(foreign ? nullptr : &*pipeline_, note);
    if (options.split == "train" || !pipeline_->has_evaluation()) pipeline_->evaluate_on_training();
    check_input(pipeline_->has_training(), "{}: there are no training volumes, whose mean covers what is covered", config_.data.path);
  }

  const std::string& data() const { return config_.data.path; }

  ModelLooks look() {
    const VolumeSet& set = pipeline_->evaluation();
    const CubeGrid patches{pipeline_->format().size, config_.model.patch};
    std::vector<int64_t> labels;
    for (int64_t i = 0; set.labels.defined() && i < set.size(); ++i)
      add_labels(row_of(set.labels, i), set.subjects[static_cast<size_t>(i)].id, labels);
    ModelLooks looks{.fold = fold_,
                     .checkpoint = model_.folder(),
                     .patches = patches,
                     .labels = labels,
                     .blocks = {},
                     .brain = mean_brain(set),
                     .attribution = Attribution(covered(patches), config_.data.spacing, labels)};
    look_at_experts(set, looks);
    if (options_.covering == Covering::cubes) cover(set, looks.attribution);
    return looks;
  }

 private:
  CubeGrid covered(const CubeGrid& patches) const {
    if (options_.cube > 0) return {patches.voxels, options_.cube};
    return {patches.voxels, patches.count() > most_cubes ? 2 * patches.side : patches.side};
  }

  MeanBrain mean_brain(const VolumeSet& set) const {
    MeanBrain brain{{centred_grid(pipeline_->format().size, config_.data.spacing), mean_of_rows(set.volumes)}, {}};
    std::vector<int64_t> there(brain.intensities.values.size());
    for (int64_t i = 0; i < set.size(); ++i) {
      const std::span<const float> own = row_of(set.volumes, i);
      for (size_t v = 0; v < own.size(); ++v) there[v] += own[v] != 0 ? 1 : 0;
    }
    for (const int64_t count : there) brain.inside.push_back(2 * count >= set.size());
    blacken_outside(brain);
    return brain;
  }

  /// After some normalisations 0, which is what lies outside, is a grey like any other.
  static void blacken_outside(MeanBrain& brain) {
    std::vector<float>& values = brain.intensities.values;
    float least = std::numeric_limits<float>::max();
    for (size_t v = 0; v < values.size(); ++v)
      if (brain.inside[v]) least = std::min(least, values[v]);
    for (size_t v = 0; v < values.size(); ++v)
      if (!brain.inside[v] && least < std::numeric_limits<float>::max()) values[v] = least;
  }

  static std::vector<float> mean_of_rows(const Tensor& all) {
    const int64_t n = all.shape()[0];
    std::vector<double> sum(row_of(all, 0).size());
    for (int64_t i = 0; i < n; ++i) std::ranges::transform(row_of(all, i), sum, sum.begin(), std::plus{});
    std::vector<float> mean;
    for (const double v : sum) mean.push_back(static_cast<float>(v / static_cast<double>(n)));
    return mean;
  }

  /// (E, patches): what a token's weights come to at each patch of image b.
  std::vector<double> weights_of(const RoutingRecord& route, const Tensor& weights, const Tensor& ids, int64_t b) const {
    const int64_t T = tokens_, prefix = T - patches_, K = route.plan.slots;
    std::vector<double> all(static_cast<size_t>(route.plan.experts * patches_));
    for (int64_t p = 0; p < patches_; ++p)
      for (int64_t k = 0; k < K; ++k) {
        const int64_t slot = (b * T + prefix + p) * K + k;
        const int64_t e = ids.data<int32_t>()[slot];
        if (e >= 0) all[static_cast<size_t>(e * patches_ + p)] += std::max(0.0f, weights.data<float>()[slot]);
      }
    return all;
  }

  void look_at_experts(const VolumeSet& set, ModelLooks& looks) {
    tokens_ = model_.vit().routed_tokens();
    patches_ = looks.patches.count();
    std::vector<std::vector<std::vector<double>>> joints;  // block, subject, (E, R)
    for (MoeLayer* layer : model_.vit().moe_layers()) {
      BlockLooks& block = looks.blocks.emplace_back();
      block.block = layer->block();
      block.experts = layer->dims().all();
      for (int64_t e = 0; e < block.experts; ++e) block.imposed.push_back(has_regions(config_.model) && e < layer->dims().experts);
      block.maps.resize(static_cast<size_t>(block.experts), std::vector<double>(static_cast<size_t>(patches_)));
    }
    joints.resize(looks.blocks.size());
    pipeline_->for_each_evaluation_batch(ctx_, evaluation_batch(config_.train), [&](const EvaluationBatch& in) {
      ForwardPass pass;
      pass.allow = in.input.allow;
      model_.vit().forward(ctx_, Variable(in.input.images), pass);
      std::vector<std::vector<double>> counts;  // subject of the batch, (patches, R)
      for (const int64_t i : in.indices)
        counts.push_back(looks.labels.empty() ? std::vector<double>() : region_voxels(looks.patches, row_of(set.labels, i), looks.labels));
      for (size_t l = 0; l < pass.routes.size(); ++l) add_route(pass.routes[l], counts, looks.blocks[l], joints[l]);
    });
    for (size_t l = 0; l < looks.blocks.size(); ++l) {
      for (std::vector<double>& map : looks.blocks[l].maps)
        for (double& v : map) v /= static_cast<double>(set.size());
      if (!looks.labels.empty()) specialise(joints[l], looks.labels, looks.blocks[l]);
    }
  }

  /// `counts`: for each image of the batch the voxels (patches, R) of its regions, or nothing.
  void add_route(const RoutingRecord& route, const std::vector<std::vector<double>>& counts, BlockLooks& block,
                 std::vector<std::vector<double>>& joints) const {
    const Tensor weights = on_host(ctx_, route.weights), ids = on_host(ctx_, route.plan.expert_ids);
    check(weights.dtype() == DType::f32, "[looks] weights in {}", name_of(weights.dtype()));
    const auto P = static_cast<size_t>(patches_);
    for (size_t b = 0; b < counts.size(); ++b) {
      const std::vector<double> own = weights_of(route, weights, ids, static_cast<int64_t>(b));
      const size_t R = counts[b].size() / P;
      std::vector<double> joint(block.maps.size() * R);
      for (size_t e = 0; e < block.maps.size(); ++e)
        for (size_t p = 0; p < P; ++p) {
          const double weight = own[e * P + p];
          block.maps[e][p] += weight;
          for (size_t r = 0; weight > 0 && r < R; ++r) joint[e * R + r] += weight * counts[b][p * R + r];
        }
      joints.push_back(std::move(joint));
    }
  }

  void specialise(const std::vector<std::vector<double>>& joints, const std::vector<int64_t>& labels, BlockLooks& block) const {
    const RngKey key = experts_key.fold(static_cast<uint64_t>(block.block));
    const std::vector<bool> all_regions(labels.size(), true), all_experts(block.imposed.size(), true);
    std::vector<bool> own, inside;
    for (const bool imposed : block.imposed) own.push_back(!imposed);
    for (const int64_t label : labels) inside.push_back(label != 0);
    block.cells = specialisation(joints, block.experts, options_.permutations, key).cells;
    block.brain_cells = specialisation(parts_of(joints, all_experts, inside), block.experts, options_.permutations, key).cells;
    const auto choosing = std::ranges::count(own, true);
    if (choosing < 2) return;
    block.everywhere = specialisation(parts_of(joints, own, all_regions), choosing, options_.permutations, key);
    block.inside = specialisation(parts_of(joints, own, inside), choosing, options_.permutations, key);
  }

  void cover(const VolumeSet& set, Attribution& attribution) {
    const std::vector<float> mean = mean_of_rows(pipeline_->training().volumes);
    const RegionMask mask(ctx_, config_.model);
    const std::vector<std::vector<size_t>> cubes = voxels_of_cubes(attribution.grid);
    for (int64_t i = 0; i < set.size(); ++i) {
      const double age = set.subjects[static_cast<size_t>(i)].age;
      const auto predict = [&](const std::vector<float>& volumes, int64_t count) {
        ForwardPass pass;
        if (mask.wanted()) pass.allow = mask(ctx_, repeated(row_of(set.labels, i), set.labels.shape(), count));
        const Tensor batch = Tensor::from<float>(*ctx_.allocator, set.volumes.shape().with(0, count), volumes);
        const Variable said = model_.vit().forward(ctx_, Variable(batch), pass);
        return predicted_numbers(model_.config().loss, on_host(ctx_, said.value));
      };
      const auto changes_of = [&](const std::vector<std::vector<size_t>>& parts) {
        return occlude(parts, row_of(set.volumes, i), mean, evaluation_batch(config_.train), predict);
      };
      if (attribution.labels.empty()) {
        attribution.add(age, changes_of(cubes), {}, {});
        continue;
      }
      const std::span<const float> map = row_of(set.labels, i);
      attribution.add(age, changes_of(cubes), region_voxels(attribution.grid, map, attribution.labels),
                      changes_of(voxels_of_labels(map, attribution.labels)));
    }
  }

  Tensor repeated(std::span<const float> labels, const Shape& shape, int64_t count) const {
    std::vector<float> all;
    for (int64_t c = 0; c < count; ++c) all.insert(all.end(), labels.begin(), labels.end());
    return Tensor::from<float>(*ctx_.allocator, shape.with(0, count), all);
  }

  const LooksOptions& options_;
  ExecContext ctx_;
  LoadedModel model_;
  RunConfig config_;
  std::optional<VolumePipeline> pipeline_;
  int fold_ = 0;
  int64_t tokens_ = 0, patches_ = 0;
};

/// The mean over models of one kind of information, against the mean over their draws.
std::optional<Information> together(const std::vector<const Specialisation*>& all) {
  if (all.empty()) return std::nullopt;
  const auto n = static_cast<double>(all.size());
  Information sum;
  std::vector<double> null(all[0]->null.size());
  for (const Specialisation* one : all) {
    sum.seen += one->information / n;
    for (size_t d = 0; d < null.size(); ++d) null[d] += one->null[d] / n;
  }
  sum.null_mean = mean_of(null);
  sum.p = p_value(sum.seen, null);
  return sum;
}

std::vector<BlockInformation> information_of(const std::vector<ModelLooks>& models) {
  std::vector<BlockInformation> all;
  for (size_t l = 0; l < models[0].blocks.size(); ++l) {
    std::vector<const Specialisation*> everywhere, inside;
    for (const ModelLooks& model : models) {
      if (model.blocks[l].everywhere) everywhere.push_back(&*model.blocks[l].everywhere);
      if (model.blocks[l].inside) inside.push_back(&*model.blocks[l].inside);
    }
    const BlockLooks& first = models[0].blocks[l];
    all.push_back({.block = first.block,
                   .imposed = std::ranges::find(first.imposed, true) != first.imposed.end(),
                   .everywhere = together(everywhere),
                   .inside = together(inside)});
  }
  return all;
}

/// Every model's map on one window that holds all of theirs, weighted by their subjects.
Volume pooled(const std::vector<ModelLooks>& models, const std::function<Volume(const ModelLooks&)>& map_of, Interpolation how) {
  std::array<int64_t, 3> size{};
  double subjects = 0;
  for (const ModelLooks& model : models) {
    for (size_t a = 0; a < 3; ++a) size[a] = std::max(size[a], model.patches.voxels[a]);
    subjects += static_cast<double>(model.attribution.subjects);
  }
  Volume sum{centred_grid(size, models[0].attribution.spacing), {}};
  sum.values.resize(static_cast<size_t>(sum.grid.voxels()));
  for (const ModelLooks& model : models) {
    const double weight = static_cast<double>(model.attribution.subjects) / subjects;
    const Volume own = map_of(model);
    const Volume there = own.grid == sum.grid ? own : resample(own, sum.grid, how);
    for (size_t v = 0; v < sum.values.size(); ++v) sum.values[v] += static_cast<float>(weight * there.values[v]);
  }
  return sum;
}

void pool(Looks& looks) {
  const auto mean_map = [](const ModelLooks& m, const std::vector<double>& sums) {
    Volume map = spread_over_voxels(m.attribution.grid, sums, m.attribution.spacing);
    for (float& v : map.values) v /= static_cast<float>(m.attribution.subjects);
    return map;
  };
  looks.attribution = pooled(
      looks.models, [&](const auto& m) { return mean_map(m, m.attribution.size); }, Interpolation::nearest);
  looks.change = pooled(
      looks.models, [&](const auto& m) { return mean_map(m, m.attribution.change); }, Interpolation::nearest);
  looks.slope = pooled(
      looks.models, [](const auto& m) { return spread_over_voxels(m.attribution.grid, m.attribution.slopes(), m.attribution.spacing); },
      Interpolation::nearest);
  looks.brain.intensities = pooled(
      looks.models, [](const auto& m) { return m.brain.intensities; }, Interpolation::linear);
  const Volume inside = pooled(
      looks.models,
      [](const ModelLooks& m) {
        return Volume{m.brain.intensities.grid, std::vector<float>(m.brain.inside.begin(), m.brain.inside.end())};
      },
      Interpolation::nearest);
  for (const float share : inside.values) looks.brain.inside.push_back(share >= 0.5f);
}

}  // namespace

double BlockLooks::share_of(int64_t expert) const {
  double own = 0, all = 0;
  for (size_t e = 0; e < maps.size(); ++e)
    for (const double v : maps[e]) {
      all += v;
      own += static_cast<int64_t>(e) == expert ? v : 0;
    }
  return all > 0 ? own / all : 0;
}

Looks look(Engine& engine, const LooksOptions& options, int threads, const WarnFn& note) {
  Looks looks;
  const std::vector<std::string> folders = models_in(options.run);
  check_input(folders.size() == 1 || (options.data.empty() && options.split != "train"),
              "--looks: of a cross-validation each model looks at those whom it never saw; for others (--data, --split train) give one "
              "model, as {}/fold-1",
              options.run);
  std::string data = options.data;
  for (const std::string& folder : folders) {
    // Of a cross-validation the last weights count: the best ones were chosen by those held out.
    const std::string checkpoint = folders.size() > 1 ? find_checkpoint(folder, "latest").folder : folder;
    Looker looker(engine, options, checkpoint, threads, note);
    if (data.empty()) data = looker.data();
    if (looks.models.empty() && !options.region_names.empty()) looks.names = RegionNames(options.region_names, data);
    looks.models.push_back(looker.look());
    looks.subjects += looks.models.back().attribution.subjects;
  }
  looks.spacing = looks.models[0].attribution.spacing;
  looks.cube = looks.models[0].attribution.grid.side;
  looks.information = information_of(looks.models);
  if (options.covering == Covering::none) return looks;
  std::vector<Attribution> parts;
  for (const ModelLooks& model : looks.models) parts.push_back(model.attribution);
  looks.report = attribution_report(parts, looks.names.planted(), options.permutations, occlusion_key);
  pool(looks);
  return looks;
}

}  // namespace ermoe
