// How a layer routes, in numbers: how flat the load is, how often nothing qualified, whether experts and classes go
// together. Collected over any number of forward passes; definitions stand at each member.
#pragma once

#include "models/model.h"

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace ermoe {

/// Of one MoE layer over everything that was added.
struct RoutingMetrics {
  int64_t block = 0;
  std::vector<double>
      load;         // share of the filled slots of scored experts, then of replicas; soft routing: of the tokens' outputs; sums to 1
  double gini = 0;  // of the load: 0 flat, (E-1)/E everything on one expert
  double cv = 0;    // standard deviation over mean of the load
  double max_over_mean = 0;
  int64_t dead_experts = 0;       // load below 1 % of the fair share 1/E
  double entropy = 0;             // of the load, over its maximum ln E
  double fallback_rate = 0;       // share of slots that no qualified scored expert filled
  double free_share = 0;          // share of slots that free experts took
  double missing_rate = 0;        // share of slots that nobody filled
  double unrouted = 0;            // share of tokens that no expert saw
  double mean_top_score = 0;      // mean over tokens of the best score
  double floor_share = 0;         // share of filled slots whose score is at or below the combine floor of 1e-3; 0 without one
  double overlap = -1;            // mean over pairs of ‖B_aᵀB_b‖²/R; R/D for random subspaces, 0 for disjoint ones; -1 without bases
  double churn = 0;               // share of tokens whose top expert differs from the last evaluation; -1 where there was none
  double class_information = -1;  // mutual information of expert (first slot) and class, nats; -1 without classes
  double class_information_null = -1;     // the same with the images' classes permuted, mean over permutations; -1 likewise
  double class_information_null_sd = -1;  // and its deviation over permutations
  double class_information_p = -1;        // (1 + permutations that reach the information) / (1 + permutations)
};

/// Permutations of the images' classes behind class_information_null.
inline constexpr int class_permutations = 99;

/// Every number of `m` but the load, by name, for logs: ("gini", 0.03). No overlap, no churn and nothing of classes where there are none.
std::vector<std::pair<std::string, double>> routing_values(const RoutingMetrics& m);

/// Gini coefficient of non-negative values; 0 for an empty or all-zero list.
double gini_of(std::span<const double> values);

class RoutingCollector {
 public:
  explicit RoutingCollector(Model& model);

  /// Adds one pass over samples with these numbers in the data set: images, captions, or pairs of both. `routes` are those of all layers,
  /// or of the layers of one tower, each layer once; a layer's tokens are as many of each sample, and padding among them counts nowhere.
  /// `labels` (B) may be empty: class information of these layers is then left out.
  void add(const std::vector<RoutingRecord>& routes, std::span<const int32_t> labels, std::span<const int64_t> samples);
  /// Joins what all ranks saw, in the order of the samples' numbers: every rank has it all then. Nothing to do for one.
  void gather(Communicator& comm);
  /// Metrics of each MoE layer, in order of depth. `churn` compares with the collector of the last evaluation (or null),
  /// which saw the same samples in the same order.
  std::vector<RoutingMetrics> metrics(const RoutingCollector* previous) const;
  /// Of each MoE layer the tokens by expert (first slot; free ones too) and class: (E + Ef, classes). All 0 without classes.
  std::vector<std::vector<double>> class_counts(int64_t classes) const;

 private:
  struct Layer {
    MoeLayer* moe = nullptr;
    bool has_floor = false;  // a slot's weight stems from its score, but at least a floor
    int64_t slots = 0, fallback = 0, missing = 0, floored = 0, tokens = 0, unrouted = 0;
    double top_score = 0;
    std::vector<double> counts;                       // (E + Ef)
    std::vector<int16_t> top;                         // (tokens over all passes) first slot's expert, -1 missing
    std::vector<int64_t> samples;                     // numbers, as they came: a layer sees images or captions
    std::vector<int32_t> labels;                      // of the samples; or none
    std::vector<int32_t> lengths;                     // by sample: its tokens, without padding
    std::vector<std::vector<int32_t>> sample_counts;  // by sample: first-slot tokens of each expert
  };
  Layer& layer_of(int64_t block);
  static void add_layer(Layer& layer, const RoutingRecord& route, int64_t samples);
  static void gather(Communicator& comm, Layer& layer);

  std::vector<Layer> layers_;
};

/// Mutual information in nats of expert and class: counts (samples, experts), a class a sample.
double class_information(const std::vector<std::vector<int32_t>>& sample_counts, std::span<const int32_t> labels);

/// (E, E) for a packed basis (E, R, D): ‖B_aᵀB_b‖²_F / R; 1 on the diagonal of orthonormal bases.
std::vector<double> subspace_overlaps(const Tensor& packed);

/// Mean over pairs of experts of ‖B_aᵀB_b‖²_F / R for a packed basis (E, R, D).
double subspace_overlap(const Tensor& packed);

}  // namespace ermoe
