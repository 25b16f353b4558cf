#include "models/routing_metrics.h"

#include "core/gather.h"
#include "core/rng.h"
#include "models/router_ermoe.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace ermoe {

std::vector<std::pair<std::string, double>> routing_values(const RoutingMetrics& m) {
  std::vector<std::pair<std::string, double>> values{{"gini", m.gini},
                                                     {"cv", m.cv},
                                                     {"max_over_mean", m.max_over_mean},
                                                     {"dead_experts", static_cast<double>(m.dead_experts)},
                                                     {"entropy", m.entropy},
                                                     {"fallback_rate", m.fallback_rate},
                                                     {"free_share", m.free_share},
                                                     {"missing_rate", m.missing_rate},
                                                     {"unrouted", m.unrouted},
                                                     {"mean_top_score", m.mean_top_score},
                                                     {"floor_share", m.floor_share}};
  if (m.overlap >= 0) values.emplace_back("overlap", m.overlap);
  if (m.churn >= 0) values.emplace_back("churn", m.churn);
  if (m.class_information < 0) return values;
  values.emplace_back("class_information", m.class_information);
  values.emplace_back("class_information_null", m.class_information_null);
  values.emplace_back("class_information_null_sd", m.class_information_null_sd);
  values.emplace_back("class_information_p", m.class_information_p);
  return values;
}

double gini_of(std::span<const double> values) {
  std::vector<double> sorted(values.begin(), values.end());
  std::ranges::sort(sorted);
  const double total = std::accumulate(sorted.begin(), sorted.end(), 0.0);
  if (sorted.empty() || total <= 0) return 0;
  double weighted = 0;
  for (size_t i = 0; i < sorted.size(); ++i) weighted += static_cast<double>(i + 1) * sorted[i];
  const auto n = static_cast<double>(sorted.size());
  return 2 * weighted / (n * total) - (n + 1) / n;
}

namespace {

/// Of samples (I), as many of whose tokens as `counts` says went to each of E experts first.
struct SampleCounts {
  explicit SampleCounts(const std::vector<std::vector<int32_t>>& of_samples) : experts(of_samples.empty() ? 0 : of_samples[0].size()) {
    counts.reserve(of_samples.size() * experts);
    for (const std::vector<int32_t>& of_sample : of_samples) counts.insert(counts.end(), of_sample.begin(), of_sample.end());
  }

  double information(std::span<const int32_t> labels, size_t classes) const {
    std::vector<int64_t> joint(classes * experts);  // whole numbers: a sum is a sum, in any order of samples
    const int32_t* own = counts.data();
    for (const int32_t label : labels) {
      int64_t* const row = joint.data() + static_cast<size_t>(label) * experts;
      for (size_t e = 0; e < experts; ++e) row[e] += *own++;
    }
    std::vector<double> of_expert(experts), of_class(classes);
    double total = 0, information = 0;
    for (size_t y = 0; y < classes; ++y)
      for (size_t e = 0; e < experts; ++e) {
        const auto count = static_cast<double>(joint[y * experts + e]);
        of_expert[e] += count;
        of_class[y] += count;
        total += count;
      }
    for (size_t e = 0; e < experts; ++e)
      for (size_t y = 0; y < classes; ++y) {
        const auto p = static_cast<double>(joint[y * experts + e]);
        if (p > 0) information += p / total * std::log(p * total / (of_expert[e] * of_class[y]));
      }
    return information;
  }

  size_t experts;
  std::vector<int32_t> counts;  // (I, E)
};

size_t classes_of(std::span<const int32_t> labels) { return static_cast<size_t>(*std::ranges::max_element(labels)) + 1; }

}  // namespace

double class_information(const std::vector<std::vector<int32_t>>& sample_counts, std::span<const int32_t> labels) {
  if (sample_counts.empty() || labels.empty()) return 0;
  return SampleCounts(sample_counts).information(labels, classes_of(labels));
}

namespace {

/// `t` where the host can read it, in f32 where it is bf16. Waits for a device.
Tensor on_host(CachingAllocator& host, const Tensor& t) {
  const Tensor here = t.defined() && t.device().is_cuda() ? t.to(host) : t;
  if (!here.defined() || here.dtype() != DType::bf16) return here;
  const Tensor wide = Tensor::empty(host, here.shape(), DType::f32);
  convert(here, wide);
  return wide;
}

}  // namespace

std::vector<double> subspace_overlaps(const Tensor& packed) {
  CachingAllocator host(make_host_source());
  const Tensor basis = on_host(host, packed);
  const int64_t E = basis.shape()[0], R = basis.shape()[1], D = basis.shape()[2];
  std::vector<double> all(static_cast<size_t>(E * E));
  dispatch_float(basis.dtype(), "overlap", [&](auto tag) {
    using T = decltype(tag);
    const T* b = basis.data<T>();
    for (int64_t a = 0; a < E; ++a)
      for (int64_t c = a; c < E; ++c) {
        double sum = 0;
        for (int64_t i = 0; i < R; ++i)
          for (int64_t j = 0; j < R; ++j) {
            double dot = 0;
            for (int64_t d = 0; d < D; ++d)
              dot += static_cast<double>(b[(a * R + i) * D + d]) * static_cast<double>(b[(c * R + j) * D + d]);
            sum += dot * dot;
          }
        all[static_cast<size_t>(a * E + c)] = all[static_cast<size_t>(c * E + a)] = sum / static_cast<double>(R);
      }
  });
  return all;
}

double subspace_overlap(const Tensor& packed) {
  if (!packed.defined() || packed.shape()[0] < 2) return 0;
  const int64_t E = packed.shape()[0];
  const std::vector<double> all = subspace_overlaps(packed);
  double sum = 0;
  for (int64_t a = 0; a < E; ++a)
    for (int64_t c = a + 1; c < E; ++c) sum += all[static_cast<size_t>(a * E + c)];
  return sum / (static_cast<double>(E * (E - 1)) / 2);
}

RoutingCollector::RoutingCollector(Model& model) {
  const MoeConfig& settings = model.experts();
  for (MoeLayer* moe : model.moe_layers()) {
    layers_.emplace_back().moe = moe;
    layers_.back().has_floor = settings.router == RouterKind::ermoe && settings.combine == Combine::normalized;
    layers_.back().counts.resize(static_cast<size_t>(moe->dims().all()));
  }
}

void RoutingCollector::add_layer(Layer& layer, const RoutingRecord& route, int64_t samples) {
  CachingAllocator host(make_host_source());
  const Tensor slot_ids = on_host(host, route.plan.expert_ids), scores = on_host(host, route.scores),
               fallbacks = on_host(host, route.fallback), countable = on_host(host, route.countable);
  const int64_t N = route.plan.tokens, K = route.plan.slots, E = scores.shape()[1];
  check(samples > 0 && N % samples == 0, "[metrics] {} tokens of block {} in {} samples", N, route.block, samples);
  const int64_t each = N / samples;
  const bool slot_a_row = route.plan.rows() == N * K;  // experts that choose leave slots without one
  const int32_t* ids = slot_ids.data<int32_t>();
  const uint8_t* fallback = fallbacks.defined() ? fallbacks.data<uint8_t>() : nullptr;
  const uint8_t* counts = countable.defined() ? countable.data<uint8_t>() : nullptr;
  const int64_t columns = countable.defined() ? countable.shape()[1] : 0;
  layer.slots += route.plan.rows();
  layer.missing += route.plan.rows();
  dispatch_float(scores.dtype(), "metrics", [&](auto tag) {
    const auto* s = scores.data<decltype(tag)>();
    for (int64_t n = 0; n < N; ++n) {
      if (n % each == 0) {
        layer.sample_counts.emplace_back(layer.counts.size());
        layer.lengths.push_back(0);
      }
      if (counts != nullptr && counts[n * columns] == 0) {  // padding
        layer.slots -= slot_a_row ? K : 0;
        layer.missing -= slot_a_row ? K : 0;
        continue;
      }
      layer.tokens += 1;
      layer.lengths.back() += 1;
      layer.top_score += static_cast<double>(*std::max_element(s + n * E, s + (n + 1) * E));
      for (int64_t k = 0; k < K; ++k) {
        const int32_t e = ids[n * K + k];
        if (e < 0) continue;
        layer.missing -= 1;
        layer.counts[static_cast<size_t>(e)] += route.soft ? static_cast<double>(s[n * E + e]) : 1.0;
        layer.fallback += fallback != nullptr && fallback[n * K + k] != 0;
        layer.floored += layer.has_floor && !route.soft && e < E && static_cast<double>(s[n * E + e]) <= 1e-3;
      }
      const int32_t e = ids[n * K];
      layer.unrouted += std::all_of(ids + n * K, ids + (n + 1) * K, [](int32_t id) { return id < 0; });
      layer.top.push_back(static_cast<int16_t>(e));
      if (e >= 0) layer.sample_counts.back()[static_cast<size_t>(e)] += 1;
    }
  });
}

RoutingCollector::Layer& RoutingCollector::layer_of(int64_t block) {
  const auto found = std::ranges::find(layers_, block, [](const Layer& layer) { return layer.moe->block(); });
  check(found != layers_.end(), "[metrics] a route of block {}, which has no experts", block);
  return *found;
}

void RoutingCollector::add(const std::vector<RoutingRecord>& routes, std::span<const int32_t> labels, std::span<const int64_t> samples) {
  check(labels.empty() || labels.size() == samples.size(), "[metrics] {} labels of {} samples", labels.size(), samples.size());
  for (const RoutingRecord& route : routes) {
    Layer& layer = layer_of(route.block);
    add_layer(layer, route, std::ssize(samples));
    layer.labels.insert(layer.labels.end(), labels.begin(), labels.end());
    layer.samples.insert(layer.samples.end(), samples.begin(), samples.end());
  }
}

namespace {

/// `values`, of which sample i has the next lengths[i], with the samples in the order `order`.
template <typename T>
std::vector<T> in_order(const std::vector<T>& values, const std::vector<int32_t>& lengths, const std::vector<size_t>& order) {
  std::vector<std::ptrdiff_t> begins{0};
  for (const int32_t length : lengths) begins.push_back(begins.back() + length);
  std::vector<T> sorted;
  for (const size_t i : order) sorted.insert(sorted.end(), values.begin() + begins[i], values.begin() + begins[i + 1]);
  return sorted;
}

std::vector<size_t> order_of(const std::vector<int64_t>& numbers) {
  std::vector<size_t> order(numbers.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, {}, [&](size_t i) { return numbers[i]; });
  return order;
}

}  // namespace

void RoutingCollector::gather(Communicator& comm, Layer& layer) {
  const std::vector<int64_t> samples = gather_from_all(comm, layer.samples);
  const std::vector<size_t> order = order_of(samples);
  const std::vector<int32_t> ones(samples.size(), 1), experts(samples.size(), static_cast<int32_t>(layer.counts.size()));
  layer.samples = in_order(samples, ones, order);
  const std::vector<int32_t> labels = gather_from_all(comm, layer.labels), lengths = gather_from_all(comm, layer.lengths);
  layer.labels = labels.size() == samples.size() ? in_order(labels, ones, order) : labels;
  layer.top = in_order(gather_from_all(comm, layer.top), lengths, order);
  layer.lengths = in_order(lengths, ones, order);
  std::vector<int32_t> flat;
  for (const std::vector<int32_t>& counts : layer.sample_counts) flat.insert(flat.end(), counts.begin(), counts.end());
  flat = in_order(gather_from_all(comm, flat), experts, order);
  layer.sample_counts.clear();
  for (auto at = flat.begin(); at != flat.end(); at += std::ssize(layer.counts))
    layer.sample_counts.emplace_back(at, at + std::ssize(layer.counts));
  std::vector<double> sums = layer.counts;
  for (const int64_t count : {layer.slots, layer.fallback, layer.missing, layer.floored, layer.tokens, layer.unrouted})
    sums.push_back(static_cast<double>(count));
  sums.push_back(layer.top_score);
  reduce_over_ranks(comm, sums);
  std::copy_n(sums.begin(), layer.counts.size(), layer.counts.begin());
  const double* rest = sums.data() + layer.counts.size();
  for (int64_t* count : {&layer.slots, &layer.fallback, &layer.missing, &layer.floored, &layer.tokens, &layer.unrouted})
    *count = static_cast<int64_t>(*rest++);
  layer.top_score = *rest;
}

void RoutingCollector::gather(Communicator& comm) {
  if (comm.size() == 1) return;
  for (Layer& layer : layers_) gather(comm, layer);
}

namespace {

void describe_load(std::span<const double> counts, RoutingMetrics& m) {
  const auto E = static_cast<double>(counts.size());
  const double total = std::accumulate(counts.begin(), counts.end(), 0.0);
  m.load.assign(counts.begin(), counts.end());
  if (total == 0) return;
  double squares = 0, entropy = 0;
  for (double& share : m.load) {
    share /= total;
    squares += (share - 1 / E) * (share - 1 / E);
    if (share > 0) entropy -= share * std::log(share);
    m.dead_experts += share < 0.01 / E;
    m.max_over_mean = std::max(m.max_over_mean, share * E);
  }
  m.gini = gini_of(m.load);
  m.cv = std::sqrt(squares / E) * E;
  m.entropy = E > 1 ? entropy / std::log(E) : 1;
}

void shuffle(std::vector<int32_t>& labels, RngKey key) {
  for (size_t i = labels.size(); i > 1; --i) std::swap(labels[i - 1], labels[uniform_int(key, i, i)]);
}

/// What a layer's experts know of classes, and what they would know by chance: whole samples change their classes, since tokens of one
/// sample depend on each other.
void add_class_information(const SampleCounts& counts, std::vector<int32_t> labels, RoutingMetrics& m) {
  const size_t classes = classes_of(labels);
  double sum = 0, squares = 0, reached = 0;  // of differences: the sums of small numbers
  m.class_information = counts.information(labels, classes);
  for (int p = 0; p < class_permutations; ++p) {
    shuffle(labels, RngKey{20}.fold(static_cast<uint64_t>(p)));
    const double apart = counts.information(labels, classes) - m.class_information;
    sum += apart;
    squares += apart * apart;
    reached += apart >= 0 ? 1 : 0;
  }
  constexpr double n = class_permutations;
  const double mean = sum / n;
  m.class_information_null = m.class_information + mean;
  m.class_information_null_sd = std::sqrt(std::max(0.0, squares / n - mean * mean));
  m.class_information_p = (1 + reached) / (1 + n);
}

}  // namespace

std::vector<std::vector<double>> RoutingCollector::class_counts(int64_t classes) const {
  std::vector<std::vector<double>> all;
  for (const Layer& layer : layers_) {
    std::vector<double>& table = all.emplace_back(layer.counts.size() * static_cast<size_t>(classes));
    if (layer.labels.size() != layer.samples.size()) continue;
    for (size_t i = 0; i < layer.labels.size(); ++i)
      for (size_t e = 0; e < layer.counts.size(); ++e)
        table[e * static_cast<size_t>(classes) + static_cast<size_t>(layer.labels[i])] += layer.sample_counts[i][e];
  }
  return all;
}

std::vector<RoutingMetrics> RoutingCollector::metrics(const RoutingCollector* previous) const {
  std::vector<RoutingMetrics> all;
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    RoutingMetrics m;
    m.block = layer.moe->block();
    const auto scored = static_cast<size_t>(layer.moe->dims().experts);
    const std::ptrdiff_t behind = static_cast<std::ptrdiff_t>(layer.moe->dims().first_replica());
    std::vector<double> loads(layer.counts.begin(), layer.counts.begin() + static_cast<std::ptrdiff_t>(scored));
    loads.insert(loads.end(), layer.counts.begin() + behind, layer.counts.end());  // a replica is busy like an expert
    describe_load(loads, m);
    const double slots = std::max<double>(1, static_cast<double>(layer.slots));
    m.fallback_rate = static_cast<double>(layer.fallback) / slots;
    m.missing_rate = static_cast<double>(layer.missing) / slots;
    m.free_share = std::accumulate(layer.counts.begin() + static_cast<std::ptrdiff_t>(scored), layer.counts.begin() + behind, 0.0) / slots;
    m.floor_share = static_cast<double>(layer.floored) / std::max<double>(1, static_cast<double>(layer.slots - layer.missing));
    m.unrouted = static_cast<double>(layer.unrouted) / std::max<double>(1, static_cast<double>(layer.tokens));
    m.mean_top_score = layer.top_score / std::max<double>(1, static_cast<double>(layer.tokens));
    if (auto* router = dynamic_cast<ErmoeRouter*>(&layer.moe->router())) m.overlap = subspace_overlap(router->packed_basis());
    m.churn = -1;
    if (previous != nullptr && previous->layers_[i].top.size() == layer.top.size() && !layer.top.empty()) {
      size_t changed = 0;
      for (size_t n = 0; n < layer.top.size(); ++n) changed += layer.top[n] != previous->layers_[i].top[n];
      m.churn = static_cast<double>(changed) / static_cast<double>(layer.top.size());
    }
    if (!layer.labels.empty() && layer.labels.size() == layer.samples.size())
      add_class_information(SampleCounts(layer.sample_counts), layer.labels, m);
    all.push_back(std::move(m));
  }
  return all;
}

}  // namespace ermoe
