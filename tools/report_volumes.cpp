#include "tools/report_volumes.h"

#include "data/volume_grid.h"
#include "tools/expert_slices.h"
#include "tools/html.h"
#include "tools/region_shares.h"
#include "tools/regression_report.h"
#include "tools/report_page.h"
#include "tools/slice_view.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cmath>

namespace ermoe {
namespace {

using nlohmann::ordered_json;

/// A sagittal, a coronal and an axial slice through the middle, side by side.
Image middle_slices(const VolumePipeline& pipeline, double spacing, int64_t i) {
  constexpr int64_t longest = 120, gap = 4;
  const Tensor& all = pipeline.evaluation().volumes;
  const int64_t each = all.numel() / all.shape()[0];
  const float* own = all.data<float>() + i * each;
  Volume volume{centred_grid(pipeline.format().size, spacing), std::vector<float>(own, own + each)};
  const float least = *std::ranges::min_element(volume.values);
  std::ranges::replace(volume.values, 0.0f, least);  // what lies outside is black, also where 0 is a grey amid the brain's
  const GreyScale scale(volume);
  const WorldBox box = box_of(volume.grid);
  std::array<Grid, 3> slices;
  int64_t width = 0, height = 0;
  for (size_t a = 0; a < 3; ++a) {
    slices[a] = slice_grid(std::array{kSagittal, kCoronal, kAxial}[a], box, {}, box.longest() / static_cast<double>(longest));
    width += slices[a].size[0] + (a > 0 ? gap : 0);
    height = std::max(height, slices[a].size[1]);
  }
  Canvas canvas(width, height, kBlack);
  int64_t x = 0;
  for (const Grid& slice : slices) {
    canvas.blit(x, (height - slice.size[1]) / 2, scale.image_of(resample(volume, slice, Interpolation::linear, scale.black())));
    x += slice.size[0] + gap;
  }
  return canvas.image();
}

}  // namespace

ordered_json report_ages(const Evaluation& evaluation, const VolumePipeline& pipeline, const RunConfig& config, const std::string& split,
                         int64_t images) {
  const std::vector<AgePrediction> ages = age_predictions(evaluation, pipeline, config.data, split);
  ordered_json out{
      {"points", ordered_json::array()}, {"report", regression_json(regression_report(ages))}, {"worst", ordered_json::array()}};
  for (const AgePrediction& one : ages) out["points"].push_back({brief(one.age), brief(one.predicted), one.subject});
  std::vector<NumberPrediction> order = evaluation.predictions;
  std::ranges::stable_sort(order, std::greater{}, [](const NumberPrediction& p) { return std::abs(p.predicted - p.truth); });
  order.resize(std::min(order.size(), static_cast<size_t>(images)));
  for (const NumberPrediction& p : order)
    out["worst"].push_back({{"image", data_uri(middle_slices(pipeline, config.data.spacing, p.sample))},
                            {"name", pipeline.sample_name(p.sample)},
                            {"truth", brief(p.truth)},
                            {"predicted", brief(p.predicted)}});
  return out;
}

ordered_json report_expert_maps(const ModelLooks& looks, double spacing, int64_t subjects) {
  ordered_json out = ordered_json::array();
  for (const BlockLooks& block : looks.blocks) {
    std::vector<MapRow> rows;
    double highest = 0;
    for (int64_t e = 0; e < block.experts; ++e) {
      const std::vector<double>& map = block.maps[static_cast<size_t>(e)];
      highest = std::max(highest, *std::ranges::max_element(map));
      const char* mask = block.imposed[static_cast<size_t>(e)] ? " (by mask)" : "";
      rows.push_back({fmt::format("expert {}{}: {:.1f} % of the weight", e, mask, 100 * block.share_of(e)),
                      spread_over_voxels(looks.patches, map, spacing)});
    }
    const std::string title = fmt::format("block {}: weight of each expert, {} subjects", block.block, subjects);
    out.push_back({{"block", block.block},
                   {"title", title},
                   {"image", data_uri(draw_maps(looks.brain, rows, looks.patches.side, 0, highest, title, "mean weight"))}});
  }
  return out;
}

}  // namespace ermoe
