#include "tools/pair_evaluation.h"

#include "core/gather.h"
#include "data/csv.h"
#include "models/config_rules.h"

#include <algorithm>
#include <numeric>

namespace ermoe {
namespace {

/// Rows of features as they come, each with a number to sort by.
struct FeatureRows {
  std::vector<int64_t> keys;  // (N)
  std::vector<float> values;  // (N, P)

  void add(const ExecContext& ctx, const Tensor& features, std::span<const int64_t> of) {
    const Tensor floats = floats_on_host(ctx, features);
    keys.insert(keys.end(), of.begin(), of.end());
    values.insert(values.end(), floats.data<float>(), floats.data<float>() + floats.numel());
  }

  /// Those of all ranks, by their keys; equal keys stay in the order in which one rank had them.
  void gather(Communicator& comm) {
    const size_t P = keys.empty() ? 0 : values.size() / keys.size();
    double width[] = {static_cast<double>(P)};
    reduce_over_ranks(comm, width, ReduceOp::max);
    const auto all_keys = gather_from_all(comm, keys);
    const auto all_values = gather_from_all(comm, values);
    std::vector<size_t> order(all_keys.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::ranges::stable_sort(order, {}, [&](size_t i) { return all_keys[i]; });
    keys.clear();
    values.clear();
    for (const size_t i : order) {
      const auto row = all_values.begin() + static_cast<std::ptrdiff_t>(i * static_cast<size_t>(width[0]));
      keys.push_back(all_keys[i]);
      values.insert(values.end(), row, row + static_cast<std::ptrdiff_t>(width[0]));
    }
  }

  Tensor tensor(CachingAllocator& host) const {
    const auto rows = std::ssize(keys);
    const Tensor t = Tensor::empty(host, {rows, rows > 0 ? std::ssize(values) / rows : 0}, DType::f32, "features");
    std::ranges::copy(values, t.data<float>());
    return t;
  }
};

/// Sends what batches hold through both towers and keeps what comes out.
class PairCollector {
 public:
  PairCollector(const ExecContext& ctx, DualEncoder& model, int64_t rows, ExpertOrder order)
      : ctx_(ctx), model_(model), rows_(rows), order_(order), routing_(std::make_shared<RoutingCollector>(model)) {}

  void add(const EvaluationBatch& in) {
    add_images(in);
    const int64_t captions = std::ssize(in.owners);
    int64_t pieces = (captions + rows_ - 1) / rows_;
    if (spread()) pieces = most_anywhere(pieces);
    for (int64_t i = 0; i < pieces; ++i) add_captions(in, std::min(captions, i * rows_), std::min(captions, (i + 1) * rows_));
  }

  const FeatureRows& images() const { return images_; }
  PairFeatures features(CachingAllocator& host) {
    images_.gather(*ctx_.comm);
    captions_.gather(*ctx_.comm);
    PairFeatures all{.samples = images_.keys, .image = images_.tensor(host), .text = captions_.tensor(host), .owners = captions_.keys};
    for (int64_t& owner : all.owners) owner = std::ranges::lower_bound(all.samples, owner) - all.samples.begin();
    return all;
  }
  std::shared_ptr<RoutingCollector> routing() {
    routing_->gather(*ctx_.comm);
    return routing_;
  }

 private:
  /// Other ranks' tokens may come to experts here: then this one takes part even where it has nothing to send.
  bool spread() const { return ctx_.expert_ranks->size() > 1; }
  int64_t most_anywhere(int64_t count) const {
    double most[] = {static_cast<double>(count)};
    reduce_over_ranks(*ctx_.comm, most, ReduceOp::max);
    return static_cast<int64_t>(most[0]);
  }
  ForwardPass pass() const {
    ForwardPass pass;
    pass.shuffle_experts = order_ == ExpertOrder::shuffled;
    return pass;
  }

  void add_images(const EvaluationBatch& in) {
    ForwardPass own = pass();
    if (in.indices.empty()) {
      if (spread())
        model_.image_features(ctx_, Variable(Tensor::zeros(*ctx_.allocator, input_shape(model_.config().image, 1), DType::f32)), own);
      return;
    }
    images_.add(ctx_, model_.image_features(ctx_, Variable(in.input.images), own).value, in.indices);
    routing_->add(own.routes, {}, in.indices);
  }

  /// Of the batch's captions those from `first` up to `last`, none included.
  void add_captions(const EvaluationBatch& in, int64_t first, int64_t last) {
    ForwardPass own = pass();
    const int64_t W = model_.config().text.context;
    if (first == last) {
      model_.text_features(ctx_, Tensor::zeros(*ctx_.allocator, {1, W}, DType::i32), own);
      return;
    }
    const auto owners = std::span(in.owners).subspan(static_cast<size_t>(first), static_cast<size_t>(last - first));
    captions_.add(ctx_, model_.text_features(ctx_, in.input.tokens.slice(first, last), own).value, owners);
    routing_->add(own.routes, {}, owners);
  }

  ExecContext ctx_;
  DualEncoder& model_;
  int64_t rows_;  // captions at a time
  ExpertOrder order_;
  FeatureRows images_, captions_;  // by sample
  std::shared_ptr<RoutingCollector> routing_;
};

/// Rows of a tensor (N, P) on the host, on the context's device.
Tensor rows_on_device(const ExecContext& ctx, CachingAllocator& host, const Tensor& from, std::span<const int64_t> rows) {
  const int64_t P = from.shape()[1];
  const Tensor picked = Tensor::empty(host, {std::ssize(rows), P}, DType::f32);
  for (size_t i = 0; i < rows.size(); ++i)
    std::copy_n(from.data<float>() + rows[i] * P, P, picked.data<float>() + static_cast<int64_t>(i) * P);
  return on_device_of(ctx, picked);
}

/// The training loss, as of one process: the mean over images, about `batch` of them at a time, each with its first caption. A rest of a
/// few images would be too easy, so all batches are as large but for one image.
double loss_of(const ExecContext& outer, CachingAllocator& host, DualEncoder& model, const PairFeatures& features, int64_t batch) {
  SelfCommunicator alone;
  ExecContext ctx = outer;
  ctx.comm = &alone;
  ctx.part = {};
  const int64_t images = std::ssize(features.samples);
  std::vector<int64_t> rows, captions(features.samples.size());
  for (int64_t c = std::ssize(features.owners) - 1; c >= 0; --c) captions[static_cast<size_t>(features.owners[static_cast<size_t>(c)])] = c;
  double sum = 0;
  const auto pieces = static_cast<int>((images + batch - 1) / batch);
  for (int piece = 0; piece < pieces; ++piece) {
    const auto [first, count, all] = part_of_batch(images, piece, pieces);
    rows.resize(static_cast<size_t>(count));
    std::iota(rows.begin(), rows.end(), first);
    const Variable image(rows_on_device(ctx, host, features.image, rows));
    const auto own = std::span(captions).subspan(static_cast<size_t>(first), static_cast<size_t>(count));
    const Variable text(rows_on_device(ctx, host, features.text, own));
    sum += static_cast<double>(count) * scalar_of(model.loss_of(ctx, image, text).value);
  }
  return sum / static_cast<double>(images);
}

}  // namespace

PairBatches pair_batches(const TrainConfig& train) { return {.images = evaluation_batch(train), .loss = train.batch / train.accumulate}; }

PairEvaluation evaluate_pairs(const ExecContext& outer, DualEncoder& model, Pipeline& pipeline, const PairBatches& batches,
                              const RoutingCollector* previous, ExpertOrder order, const EvaluationProgress& progress) {
  ExecContext ctx = outer.with_tape(nullptr);
  ctx.mode = Mode::eval;
  CachingAllocator& host = ctx.host != nullptr ? *ctx.host : *ctx.allocator;
  model.refresh_if_stale(ctx);  // together: a rank without images in the first batch would not come to it there
  PairCollector collector(ctx, model, most_images_a_part(batches.images, ctx.comm->size()), order);
  pipeline.for_each_evaluation_batch(ctx, batches.images, [&](const EvaluationBatch& in) {
    collector.add(in);
    if (progress) progress(std::ssize(collector.images().keys));
  });
  PairEvaluation result{.evaluation = {}, .features = collector.features(host)};
  Evaluation& e = result.evaluation;
  e.images = std::ssize(result.features.samples);
  check_input(e.images > 0, "not one image to evaluate on could be read");
  e.retrieval = retrieval_report(result.features.image, result.features.text, result.features.owners);
  e.loss = loss_of(ctx, host, model, result.features, batches.loss);
  e.collector = collector.routing();
  e.routing = e.collector->metrics(previous);
  return result;
}

std::string found_csv(const PairFeatures& features, const CaptionPipeline& pipeline) {
  const std::vector<FoundImage> found = found_images(features.image, features.text, features.owners);
  const auto name = [&](int64_t row) { return csv_field(pipeline.sample_name(features.samples[static_cast<size_t>(row)])); };
  std::string text = "image,caption,rank,top_image\n";
  size_t c = 0;
  for (int64_t row = 0; row < std::ssize(features.samples); ++row)
    for (const std::string& caption : pipeline.evaluation().captions(features.samples[static_cast<size_t>(row)])) {
      text += fmt::format("{},{},{},{}\n", name(row), csv_field(caption), found[c].rank, found[c].top < 0 ? "" : name(found[c].top));
      ++c;
    }
  return text;
}

}  // namespace ermoe
