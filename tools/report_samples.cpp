#include "tools/report_samples.h"

#include "core/error.h"
#include "core/flat.h"
#include "data/sample_reader.h"
#include "tools/chart.h"
#include "tools/html.h"
#include "tools/report_page.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>

namespace ermoe {
namespace {

using nlohmann::ordered_json;

constexpr size_t most_favourites = 9;

Tensor wide(const ExecContext& ctx, const Tensor& t) {
  const Tensor here = on_host(ctx, t);
  if (here.dtype() == DType::f32) return here;
  const Tensor floats = Tensor::empty(ctx.host != nullptr ? *ctx.host : *ctx.allocator, here.shape(), DType::f32);
  convert(here, floats);
  return floats;
}

/// Keeps the best ones, in order.
template <typename T, typename Rank>
void keep_best(std::vector<T>& all, T one, size_t most, Rank rank) {
  if (all.size() == most && rank(all.back()) >= rank(one)) return;
  const auto place = std::ranges::find_if(all, [&](const T& other) { return rank(other) < rank(one); });
  all.insert(place, std::move(one));
  if (all.size() > most) all.pop_back();
}

/// The part of `image` from (x, y); black beyond its border.
Image cut(const Image& image, int64_t x, int64_t y, int64_t side) {
  Image part{.height = side, .width = side, .channels = image.channels, .pixels = {}};
  part.pixels.resize(static_cast<size_t>(side * side * image.channels));
  for (int64_t row = 0; row < side; ++row)
    for (int64_t column = 0; column < side; ++column) {
      const int64_t from_x = x + column, from_y = y + row;
      if (from_x < 0 || from_y < 0 || from_x >= image.width || from_y >= image.height) continue;
      for (int64_t c = 0; c < image.channels; ++c)
        part.pixels[static_cast<size_t>((row * side + column) * image.channels + c)] =
            image.pixels[static_cast<size_t>((from_y * image.width + from_x) * image.channels + c)];
    }
  return part;
}

}  // namespace

SampleGatherer::SampleGatherer(Vit& model, const LossConfig& loss, std::set<int64_t> shown, size_t mistakes)
    : tokens_(model.routed_tokens()),
      prefix_(model.routed_prefix_tokens()),
      sigmoid_(loss.kind == LossKind::sigmoid),
      wanted_(std::move(shown)),
      most_mistakes_(mistakes) {
  for (MoeLayer* layer : model.moe_layers()) favourites_.emplace_back(static_cast<size_t>(layer->dims().all()));
}

SampleRecord SampleGatherer::judge(const EvaluationBatch& batch, const Tensor& outputs, size_t b) const {
  const int64_t Y = outputs.shape()[1];
  const float* row = outputs.data<float>() + static_cast<int64_t>(b) * Y;
  const float* best = std::max_element(row, row + Y);
  double total = 0;
  for (int64_t y = 0; y < Y; ++y) total += std::exp(static_cast<double>(row[y]) - static_cast<double>(*best));
  return {.index = batch.indices[b],
          .truth = batch.labels[b],
          .guess = static_cast<int32_t>(best - row),
          .probability = sigmoid_ ? 1 / (1 + std::exp(-static_cast<double>(*best))) : 1 / total,
          .experts = {}};
}

void SampleGatherer::add(const ExecContext& ctx, const EvaluationBatch& batch, const Tensor& outputs,
                         const std::vector<RoutingRecord>& routes) {
  std::vector<SampleRecord> records;
  for (size_t b = 0; b < batch.labels.size(); ++b) records.push_back(judge(batch, outputs, b));
  for (const SampleRecord& record : records)
    if (record.guess != record.truth) keep_best(mistakes_, record, most_mistakes_, [](const SampleRecord& r) { return r.probability; });
  for (size_t layer = 0; layer < routes.size(); ++layer) add_layer(layer, ctx, routes[layer], batch, records);
  for (SampleRecord& record : records)
    if (wanted_.contains(record.index)) shown_.push_back(std::move(record));
}

void SampleGatherer::add_layer(size_t layer, const ExecContext& ctx, const RoutingRecord& route, const EvaluationBatch& batch,
                               std::vector<SampleRecord>& records) {
  if (route.soft) return;  // every expert has a part of every token: none takes it first
  const Tensor ids = on_host(ctx, route.plan.expert_ids), scores = wide(ctx, route.scores);
  const int64_t K = route.plan.slots, E = scores.shape()[1];
  for (size_t b = 0; b < records.size(); ++b) {
    std::vector<ScoredPatch> best(favourites_[layer].size(), {.image = -1});
    std::vector<int32_t> experts;
    for (int64_t p = 0; p < tokens_ - prefix_; ++p) {
      const int64_t n = static_cast<int64_t>(b) * tokens_ + prefix_ + p;
      const int32_t e = ids.data<int32_t>()[n * K];
      experts.push_back(e);
      if (e < 0 || e >= E) continue;  // nobody, or a free expert, which scores nothing
      const float score = scores.data<float>()[n * E + e];
      ScoredPatch& own = best[static_cast<size_t>(e)];
      if (own.image < 0 || score > own.score) own = {batch.indices[b], p, score};
    }
    if (wanted_.contains(records[b].index)) records[b].experts.push_back(std::move(experts));
    for (size_t e = 0; e < best.size(); ++e)
      if (best[e].image >= 0) keep_best(favourites_[layer][e], best[e], most_favourites, [](const ScoredPatch& p) { return p.score; });
  }
}

const std::vector<ScoredPatch>& SampleGatherer::favourites(size_t layer, int64_t expert) const {
  return favourites_.at(layer).at(static_cast<size_t>(expert));
}

SamplePictures::SamplePictures(const ImagePipeline& pipeline, const RunConfig& config)
    : pipeline_(pipeline), patch_(config.model.patch), format_(sample_format(config)), reader_(pipeline.evaluation(), format_, 0) {}

Image SamplePictures::read(int64_t index) {
  Image image{.height = format_.size, .width = format_.size, .channels = format_.channels, .pixels = {}};
  image.pixels.resize(static_cast<size_t>(format_.elements()));
  reader_.read(index, image.pixels.data());
  return image;
}

ordered_json SamplePictures::describe(const SampleRecord& record) {
  ordered_json out;
  try {
    out["image"] = data_uri(read(record.index));
  } catch (const InputError&) {
    return nullptr;  // a broken file was named by the evaluation
  }
  out["name"] = pipeline_.sample_name(record.index);
  out["index"] = record.index;
  out["truth"] = record.truth;
  out["guess"] = record.guess;
  out["probability"] = brief(record.probability);
  if (!record.experts.empty()) out["experts"] = record.experts;
  return out;
}

std::string SamplePictures::favourites(const std::vector<ScoredPatch>& patches) {
  if (patches.empty()) return {};
  constexpr int64_t pane = 60, across = 3, gap = 2;
  const int64_t margin = std::max<int64_t>(patch_, 4), side = patch_ + 2 * margin, scale = std::max<int64_t>(1, pane / side);
  const int64_t step = side * scale + gap, grid = format_.size / patch_;
  Canvas canvas(across * step - gap, across * step - gap, {128, 128, 128});
  for (size_t i = 0; i < patches.size(); ++i) {
    const int64_t x = patches[i].patch % grid * patch_, y = patches[i].patch / grid * patch_;
    const int64_t left = static_cast<int64_t>(i) % across * step, top = static_cast<int64_t>(i) / across * step;
    try {
      canvas.blit(left, top, cut(read(patches[i].image), x - margin, y - margin, side), scale);
    } catch (const InputError&) {
      continue;
    }
    const int64_t inner = patch_ * scale;  // white within black: seen on any picture
    canvas.frame({left + margin * scale - 2, top + margin * scale - 2, inner + 4, inner + 4}, kBlack);
    canvas.frame({left + margin * scale - 1, top + margin * scale - 1, inner + 2, inner + 2}, kWhite);
  }
  return data_uri(canvas.image());
}

}  // namespace ermoe
