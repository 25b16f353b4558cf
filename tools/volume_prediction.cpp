#include "tools/volume_prediction.h"

#include "core/error.h"
#include "core/flat.h"
#include "data/csv.h"
#include "data/nifti.h"
#include "data/volume_grid.h"
#include "data/volume_reader.h"
#include "models/config_rules.h"
#include "models/regions.h"
#include "models/task_loss.h"
#include "tools/volume_settings.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace ermoe {
namespace {

struct Look {
  Tensor volumes, labels;  // (1, 1, nz, ny, nx), (1, nz, ny, nx) or undefined
};

double deviation(const std::vector<double>& values) {
  if (values.size() < 2) return 0;
  const auto n = static_cast<double>(values.size());
  const double mean = std::reduce(values.begin(), values.end()) / n;
  double squares = 0;
  for (const double v : values) squares += (v - mean) * (v - mean);
  return std::sqrt(squares / (n - 1));
}

/// The map of regions at the voxels of the prepared volume: the one given, on the volume's own grid, or the run's atlas.
std::vector<float> labels_at(const Grid& window, const Grid& own, const RunConfig& config, const std::string& given) {
  const std::string path = given.empty() ? config.data.regions : given;
  check_input(!path.empty() && path.find('{') == std::string::npos,
              "--regions: the model's experts have regions, so it wants the volume's map of regions");
  const Volume map = read_nifti(path);
  require_labels(map, path);
  check_input(given.empty() || same_grid(map.grid, own), "{} does not lie on the grid of the volume", path);
  return resample(map, window, Interpolation::nearest).values;
}

Look prepare(const ExecContext& ctx, const LoadedModel& model, const std::string& file, const Volume& volume,
             const VolumePredictionOptions& options) {
  const RunConfig& config = model.config();
  const Shape shape = input_shape(config.model, 1);
  const Volume ready = prepare_volume(
      volume, {.size = {shape[4], shape[3], shape[2]}, .spacing = config.data.spacing, .normalize = config.data.normalize, .regions = {}},
      file);
  Look look{.volumes = Tensor::from<float>(*ctx.allocator, shape, ready.values), .labels = {}};
  if (has_regions(config.model)) {
    const std::vector<float> labels = labels_at(ready.grid, volume.grid, config, options.regions);
    look.labels = Tensor::from<float>(*ctx.allocator, {1, shape[2], shape[3], shape[4]}, labels);
  }
  return look;
}

double age_of(const ExecContext& ctx, LoadedModel& model, const RegionMask& mask, const Look& look, ForwardPass& pass) {
  pass.allow = mask(ctx, look.labels);
  const Variable output = model.vit().forward(ctx, Variable(look.volumes), pass);
  return predicted_numbers(model.config().loss, on_host(ctx, output.value))[0];
}

/// How much each of E experts did in a layer: slots that it filled, or under soft routing the sum of its tokens' weights.
std::vector<double> loads_of(const ExecContext& ctx, const RoutingRecord& route) {
  if (!route.soft) {
    const Tensor counts = on_host(ctx, route.plan.counts);
    const auto all = counts.span<int32_t>();
    return {all.begin(), all.end()};
  }
  CachingAllocator& memory = ctx.host != nullptr ? *ctx.host : *ctx.allocator;
  const Tensor given = on_host(ctx, route.scores), scores = Tensor::empty(memory, given.shape(), DType::f32);
  convert(given, scores);  // a GPU's may be of 16 bits
  const int64_t N = scores.shape()[0], E = scores.shape()[1];
  std::vector<double> sums(static_cast<size_t>(E));
  for (int64_t i = 0; i < N * E; ++i) sums[static_cast<size_t>(i % E)] += static_cast<double>(scores.data<float>()[i]);
  return sums;
}

/// Of the last block with experts.
std::vector<ExpertUse> experts_of(const ExecContext& ctx, const ForwardPass& pass, int64_t most) {
  std::vector<ExpertUse> uses;
  if (pass.routes.empty()) return uses;
  const RoutingRecord& last = pass.routes.back();
  const std::vector<double> loads = loads_of(ctx, last);
  const double all = std::reduce(loads.begin(), loads.end());
  for (size_t e = 0; e < loads.size(); ++e)
    uses.push_back({.block = last.block, .expert = static_cast<int64_t>(e), .share = all > 0 ? loads[e] / all : 0});
  std::ranges::stable_sort(uses, std::greater{}, &ExpertUse::share);
  uses.resize(std::min(uses.size(), static_cast<size_t>(most)));
  return uses;
}

}  // namespace

VolumePrediction predict_volume(Engine& engine, std::vector<LoadedModel>& models, const std::string& file,
                                const VolumePredictionOptions& options) {
  ExecContext ctx = engine.ctx;
  ctx.mode = Mode::eval;
  const Volume volume = read_nifti(file);
  VolumePrediction result{.file = file, .experts = {}};
  std::vector<double> copies;
  for (LoadedModel& model : models) {
    const RunConfig& config = model.config();
    const Look look = prepare(ctx, model, file, volume, options);
    const RegionMask mask(ctx, config.model);
    ForwardPass pass;
    result.each.push_back(age_of(ctx, model, mask, look, pass));
    if (result.each.size() == 1) result.experts = experts_of(ctx, pass, options.experts);
    for (int64_t i = 0; models.size() == 1 && i < options.copies; ++i) {
      const RngKey key = RngKey{17}.fold(static_cast<uint64_t>(i));
      const VolumesAndLabels varied = augment_volume(ctx, look.volumes, look.labels, volume_augment(config.augment), key);
      ForwardPass other;
      copies.push_back(age_of(ctx, model, mask, {varied.volumes, varied.labels}, other));
    }
  }
  result.age = std::reduce(result.each.begin(), result.each.end()) / static_cast<double>(result.each.size());
  result.spread = deviation(models.size() > 1 ? result.each : copies);
  return result;
}

std::string volume_predictions_text(const std::vector<VolumePrediction>& predictions, PredictionFormat format) {
  if (format == PredictionFormat::json) {
    nlohmann::ordered_json all = nlohmann::ordered_json::array();
    for (const VolumePrediction& p : predictions) {
      nlohmann::ordered_json experts = nlohmann::ordered_json::array();
      for (const ExpertUse& use : p.experts) experts.push_back({{"block", use.block}, {"expert", use.expert}, {"share", use.share}});
      all.push_back({{"file", p.file}, {"age", p.age}, {"spread", p.spread}, {"models", p.each}, {"experts", experts}});
    }
    return all.dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  }
  std::string text = "file,age,spread,models,experts\n";
  for (const VolumePrediction& p : predictions) {
    std::string experts;
    for (const ExpertUse& use : p.experts)
      experts += fmt::format("{}block {} expert {}: {:.0f} %", experts.empty() ? "" : "; ", use.block, use.expert, 100 * use.share);
    text += fmt::format("{},{:.2f},{:.2f},{},{}\n", csv_field(p.file), p.age, p.spread, p.each.size(), csv_field(experts));
  }
  return text;
}

}  // namespace ermoe
