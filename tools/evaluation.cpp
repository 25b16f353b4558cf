#include "tools/evaluation.h"

#include "core/flat.h"
#include "core/gather.h"
#include "models/config_rules.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

namespace ermoe {

namespace {

constexpr int64_t statistics_count = 8;  // batches that statistics are taken from

/// Adds a batch's ranks to the counts, and what is said of its samples.
void add_predictions(const Tensor& logits, std::span<const int32_t> labels, std::span<const int64_t> samples, Evaluation& total,
                     std::vector<int64_t>& hits, std::vector<int64_t>& seen) {
  const int64_t Y = logits.shape()[1];
  for (size_t b = 0; b < labels.size(); ++b) {
    const float* row = logits.data<float>() + static_cast<int64_t>(b) * Y;
    const int32_t y = labels[b];
    // Ties count against the model: an all-equal output is no prediction.
    int64_t ahead = 0;
    for (int64_t k = 0; k < Y; ++k) ahead += k != y && !(row[k] < row[y]);
    const int64_t predicted = std::max_element(row, row + Y) - row;
    const int64_t said = ahead > 0 && predicted == y ? -1 : predicted;
    total.predictions.push_back({.sample = samples[b], .truth = static_cast<double>(y), .predicted = static_cast<double>(said)});
    total.confusion[static_cast<size_t>(y * Y + predicted)] += 1;
    hits[static_cast<size_t>(y)] += ahead == 0;
    seen[static_cast<size_t>(y)] += 1;
    total.accuracy += ahead == 0;
    total.top5 += ahead < 5;
  }
}

/// Adds what a regression says of a batch, whose numbers are `targets` (B, 1).
void add_numbers(const LossConfig& loss, const Tensor& outputs, const Tensor& targets, std::span<const int64_t> samples,
                 Evaluation& total) {
  const std::vector<double> predicted = predicted_numbers(loss, outputs);
  for (size_t b = 0; b < samples.size(); ++b)
    total.predictions.push_back({.sample = samples[b], .truth = targets.data<float>()[b], .predicted = predicted[b]});
}

/// Other ranks may have images whose tokens come to experts here: with an image of zeros this one takes part.
void take_part(const ExecContext& ctx, Vit& model, ForwardPass& pass) {
  if (ctx.expert_ranks->size() > 1)
    model.forward(ctx, Variable(Tensor::zeros(*ctx.allocator, input_shape(model.config(), 1), DType::f32)), pass);
}

/// Sums over ranks of everything that was counted.
void join_ranks(Communicator& comm, Evaluation& total, std::vector<int64_t>& hits, std::vector<int64_t>& seen) {
  if (comm.size() == 1) return;
  std::vector<double> sums{static_cast<double>(total.images), total.loss, total.accuracy, total.top5};
  std::vector<int64_t>* const counts[] = {&hits, &seen, &total.confusion};
  for (const auto* list : counts)
    for (const int64_t count : *list) sums.push_back(static_cast<double>(count));
  reduce_over_ranks(comm, sums);
  const double* at = sums.data();
  total.images = static_cast<int64_t>(*at++);
  for (double* mean : {&total.loss, &total.accuracy, &total.top5}) *mean = *at++;
  for (auto* list : counts)
    for (int64_t& count : *list) count = static_cast<int64_t>(*at++);
  total.collector->gather(comm);
  total.predictions = gather_from_all(comm, total.predictions);
  std::ranges::sort(total.predictions, {}, &NumberPrediction::sample);
}

}  // namespace

int64_t evaluation_batch(const TrainConfig& train) {
  return train.eval_batch > 0 ? train.eval_batch : std::max<int64_t>(1, train.batch / train.accumulate);
}

ForEachBatch statistics_batches(const ExecContext& ctx, Pipeline& pipeline, int64_t batch) {
  return [&pipeline, ctx, batch](const std::function<void(const ModelInput&)>& fn) {
    pipeline.for_each_plain_batch(ctx, batch, statistics_count, fn);
  };
}

bool take_other_data(RunConfig& config, const std::string& path) {
  std::error_code gone;
  if (path.empty() || path == config.data.path || std::filesystem::equivalent(path, config.data.path, gone)) return false;
  DataConfig& data = config.data;
  data.path = path;
  data.val_share = 0;
  data.folds = data.fold = data.overfit = data.limit = 0;
  data.part = EvaluationPart::auto_;
  return true;
}

std::vector<AgePrediction> age_predictions(const Evaluation& evaluation, const Pipeline& pipeline, const DataConfig& data,
                                           const std::string& split) {
  std::vector<AgePrediction> all;
  for (const NumberPrediction& p : evaluation.predictions) {
    AgePrediction& one = all.emplace_back();
    one.subject = pipeline.sample_name(p.sample);
    one.age = p.truth;
    one.predicted = p.predicted;
    one.training_mean = pipeline.mean_target();
    if (data.fold > 0) one.fold = static_cast<int>(data.fold);
    one.split = split;
  }
  return all;
}

Tensor floats_on_host(const ExecContext& ctx, const Tensor& t) {
  const Tensor here = on_host(ctx, t);
  if (here.dtype() == DType::f32) return here;
  const Tensor floats = Tensor::empty(here.allocator(), here.shape(), DType::f32, "host copy");
  convert(here, floats);
  return floats;
}

Evaluation evaluate(const ExecContext& outer, Vit& model, Pipeline& pipeline, const LossConfig& loss, int64_t batch,
                    const RoutingCollector* previous, ExpertOrder order, const EvaluationProgress& progress,
                    const EvaluationObserver& observer) {
  ExecContext ctx = outer.with_tape(nullptr);
  ctx.mode = Mode::eval;
  LossConfig plain = loss;
  plain.class_weights.clear();
  const int64_t Y = model.config().classes;
  Evaluation total;
  total.collector = std::make_shared<RoutingCollector>(model);
  total.confusion.resize(static_cast<size_t>(Y * Y));
  std::vector<int64_t> hits(static_cast<size_t>(Y)), seen(static_cast<size_t>(Y));
  model.refresh_if_stale(ctx);  // together: a rank without images in the first batch would not come to it there
  pipeline.for_each_evaluation_batch(ctx, batch, [&](const EvaluationBatch& in) {
    ForwardPass pass;
    pass.shuffle_experts = order == ExpertOrder::shuffled;
    if (in.labels.empty()) return take_part(ctx, model, pass);
    pass.allow = in.input.allow;
    const Variable outputs = model.forward(ctx, Variable(in.input.images), pass);
    const auto count = static_cast<double>(in.labels.size());
    total.loss += count * scalar_of(task_loss(ctx, plain, outputs, in.targets).value);
    const Tensor read = on_host(ctx, outputs.value);
    if (is_regression(loss.kind))
      add_numbers(loss, read, on_host(ctx, in.targets), in.indices, total);
    else
      add_predictions(read, in.labels, in.indices, total, hits, seen);
    const bool classes = !is_regression(loss.kind);
    total.collector->add(pass.routes, classes ? std::span<const int32_t>(in.labels) : std::span<const int32_t>(), in.indices);
    total.images += static_cast<int64_t>(in.labels.size());
    if (observer) observer(in, read, pass.routes);
    if (progress) progress(total.images);
  });
  join_ranks(*ctx.comm, total, hits, seen);
  const double n = std::max<double>(1, static_cast<double>(total.images));
  total.loss /= n;
  total.accuracy /= n;
  total.top5 /= n;
  for (size_t y = 0; y < hits.size(); ++y)
    total.class_accuracy.push_back(seen[y] > 0 ? static_cast<double>(hits[y]) / static_cast<double>(seen[y]) : -1.0);
  if (is_regression(loss.kind))
    for (const NumberPrediction& p : total.predictions) total.mae += std::abs(p.predicted - p.truth) / n;
  total.routing = total.collector->metrics(previous);
  return total;
}

}  // namespace ermoe
