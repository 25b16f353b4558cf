#include "tools/parallel_choice.h"

#include "models/config_rules.h"
#include "models/train_step.h"
#include "tools/model_choice.h"

#include <algorithm>

namespace ermoe {
namespace {

/// Of rows that `ranks` ranks share evenly, what one of them does not have itself; also of a tensor, what a rank sends in a
/// reduction to parts or in a gathering of parts.
double share_of_others(int64_t ranks) { return static_cast<double>(ranks - 1) / static_cast<double>(ranks); }

double bytes_of(double elements, DType dtype) { return elements * static_cast<double>(size_of(dtype)); }

/// "145 MB", "1.20 GB".
std::string bytes_text(double bytes) {
  const auto digits = [](double value) { return value < 10 ? 2 : value < 100 ? 1 : 0; };
  for (const auto& [unit, name] : {std::pair(1e9, "GB"), std::pair(1e6, "MB")})
    if (bytes >= unit) return fmt::format("{:.{}f} {}", bytes / unit, digits(bytes / unit), name);
  return fmt::format("{:.1f} kB", bytes / 1e3);
}

/// Where experts are: "on each rank", "over 2 ranks".
std::string place_of(int64_t expert_ranks) { return expert_ranks == 1 ? "on each rank" : fmt::format("over {} ranks", expert_ranks); }

std::string describe_traffic(const ExpertTraffic& way, Overlap overlap) {
  std::vector<std::string> parts;
  if (overlap == Overlap::backward_pass && way.reductions.bytes > 0)
    parts.push_back(fmt::format("{} beside the backward pass", bytes_text(way.reductions.bytes)));
  if (way.exchanges.bytes > 0) parts.push_back(fmt::format("tokens {}, beside nothing", bytes_text(way.exchanges.bytes)));
  return parts.empty() ? bytes_text(way.bytes()) : fmt::format("{} ({})", bytes_text(way.bytes()), fmt::join(parts, "; "));
}

}  // namespace

Traffic& Traffic::operator+=(const Traffic& other) {
  bytes += other.bytes;
  calls += other.calls;
  return *this;
}

GradWrites gradient_writes(const RunConfig& config, int ranks) {
  const bool wide = ranks > 1 && config.parallel.reduce == ReduceDtype::f32;
  return wide ? GradWrites::many : grad_writes(config.train.accumulate);
}

SharedSizes shared_sizes(const RunConfig& config, int ranks, DType compute) {
  const std::unique_ptr<Model> whole = make_model(config);  // without memory: its shapes are those of one rank alone
  auto* const dual = dynamic_cast<DualEncoder*>(whole.get());
  Vit& model = dual != nullptr ? dual->image() : dynamic_cast<Vit&>(*whole);
  const MoeConfig& moe = config.model.moe;
  SharedSizes sizes;
  for (MoeLayer* layer : model.moe_layers()) {
    const ExpertDims& d = layer->dims();
    sizes.experts = d.all();
    sizes.scored_experts = d.experts;
    sizes.layers += 1;
    sizes.matrix_elements = sizes.matrices = sizes.direct_elements = 0;
    for (GatheredParameter* w : layer->experts().gathered()) {
      sizes.matrix_elements += w->parameter().shape.numel() / d.all();
      sizes.matrices += 1;
    }
    for (const Parameter* p : parameters_of(layer->experts()))
      if (p->role == Parameter::Role::direct) sizes.direct_elements += p->shape.numel() / d.all();
    if (GatheredParameter* basis = layer->router().gathered()) sizes.basis_elements = basis->parameter().shape.numel() / d.experts;
    if (const Parameter* common = layer->router().common_factor()) sizes.other_elements += common->shape.numel();
  }
  for (const Parameter* p : parameters_of(*whole))
    if (p->role == Parameter::Role::direct && !p->expert_sharded) sizes.other_elements += p->shape.numel();
  sizes.width = config.model.width;
  sizes.rows = static_cast<double>(config.train.batch * model.tokens() * moe.top_k) / ranks;
  sizes.micro_batches = config.train.accumulate;
  sizes.forward_passes = config.model.recompute ? 2 : 1;
  sizes.compute = compute;
  sizes.reduction = gradient_writes(config, ranks) == GradWrites::once ? compute : DType::f32;
  return sizes;
}

ExpertTraffic expert_traffic(const SharedSizes& sizes, int ranks, int64_t expert_ranks, Begun begun) {
  const auto L = static_cast<double>(sizes.layers), E = static_cast<double>(sizes.experts), M = static_cast<double>(expert_ranks);
  const int64_t replicas = ranks / expert_ranks;
  const double held = share_of_others(replicas) / M;  // of all experts: what a rank sends among those that hold the same ones
  const double all = held + share_of_others(expert_ranks);
  const double matrices = L * E * static_cast<double>(sizes.matrix_elements), direct = L * E * static_cast<double>(sizes.direct_elements);
  const double basis = L * static_cast<double>(sizes.scored_experts * sizes.basis_elements);
  ExpertTraffic way;
  way.expert_ranks = expert_ranks;
  way.reductions.bytes = bytes_of(held * matrices, sizes.reduction) + bytes_of(all * basis + held * direct, DType::f32);
  way.gathers.bytes = bytes_of(held * matrices + all * basis, sizes.compute) + bytes_of(held * direct, DType::f32);
  // Rows and their results on each way forward, both gradients on the way back; before the rows, how many come.
  const int64_t passes = sizes.forward_passes, row_exchanges = 2 * passes + 2, tables = passes * sizes.micro_batches;
  const double rows = sizes.rows * share_of_others(expert_ranks) * static_cast<double>(sizes.width);
  if (expert_ranks > 1) {
    way.exchanges.bytes = L * (bytes_of(static_cast<double>(row_exchanges) * rows, sizes.compute) +
                               bytes_of(static_cast<double>(tables) * (M - 1) * E, DType::i32));
    way.exchanges.calls = sizes.layers * (row_exchanges * sizes.micro_batches + tables);
  }
  const int64_t among_replicas = replicas > 1 ? 1 : 0, for_routers = expert_ranks > 1 && sizes.basis_elements > 0 ? 1 : 0;
  if (begun == Begun::together) {  // what goes to routers first goes with the other weights of the layer
    way.reductions.calls = sizes.layers * among_replicas;
    way.gathers.calls = among_replicas + for_routers;
    return way;
  }
  const int64_t kinds = sizes.matrices + (sizes.direct_elements > 0) + (sizes.basis_elements > 0);
  way.reductions.calls = way.gathers.calls = sizes.layers * (kinds * among_replicas + for_routers);
  return way;
}

Traffic other_traffic(const SharedSizes& sizes, int ranks) {
  return {.bytes = 2 * bytes_of(share_of_others(ranks) * static_cast<double>(sizes.other_elements), DType::f32), .calls = 2};
}

std::vector<int64_t> expert_rank_choices(int ranks, int64_t experts) {
  std::vector<int64_t> choices;
  for (int64_t M = 1; M <= std::min<int64_t>(ranks, experts); ++M)
    if (ranks % M == 0) choices.push_back(M);
  return choices;
}

double Link::seconds(const Traffic& traffic) const {
  return (rate > 0 ? traffic.bytes / rate : 0) + latency * static_cast<double>(traffic.calls);
}

double predicted_seconds(const ExpertTraffic& traffic, const Links& links) {
  return links.reduce.seconds(traffic.reductions) + links.reduce.seconds(traffic.gathers) + links.exchange.seconds(traffic.exchanges);
}

std::string describe_choice(const std::vector<ExpertTraffic>& ways, const Traffic& other, const Links& links, Overlap overlap) {
  std::vector<std::string> bytes, seconds;
  const ExpertTraffic* fastest = &ways.front();
  for (const ExpertTraffic& way : ways) {
    const double predicted = predicted_seconds(way, links);
    if (predicted < predicted_seconds(*fastest, links)) fastest = &way;
    const char* unit = bytes.empty() ? " a step and rank" : "";
    bytes.push_back(fmt::format("{}{}: {}", place_of(way.expert_ranks), unit, describe_traffic(way, overlap)));
    seconds.push_back(fmt::format("{:.2f} ms {}", 1e3 * predicted, place_of(way.expert_ranks)));
  }
  const std::string verdict = ways.size() > 1 ? fmt::format(": {} is faster", place_of(fastest->expert_ranks)) : "";
  return fmt::format(
      "parallel experts {}; other weights: {}\n"
      "         predicted {} (sums at {}/s, tokens at {}/s){}",
      fmt::join(bytes, "; "), bytes_text(other.bytes), fmt::join(seconds, ", "), bytes_text(links.reduce.rate),
      bytes_text(links.exchange.rate), verdict);
}

const TimedChoice& fastest_of(const std::vector<TimedChoice>& choices) {
  return *std::ranges::min_element(choices, {}, [](const TimedChoice& c) { return c.seconds; });
}

std::string describe_timings(const std::vector<TimedChoice>& choices, int64_t steps) {
  std::string text = fmt::format("parallel experts, timed in {} steps each on random images, the slowest rank's median:", steps);
  for (const TimedChoice& c : choices)
    text += fmt::format("\n         {:<16} {:>9.2f} ms a step{}", place_of(c.expert_ranks), 1e3 * c.seconds,
                        &c == &fastest_of(choices) ? ", taken" : "");
  return text;
}

}  // namespace ermoe
