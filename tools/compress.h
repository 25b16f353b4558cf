// Fewer experts, or copies of busy ones, without training: experts of a trained model are dropped or merged by how they were used, and the
// most loaded get a replica with int8 weights, which takes every other token of theirs. The result is a model like any other, of plain
// experts. Read next: tools/ermoe_compress.cpp; first: models/moe.h.
//
// After DERN (retraining-free pruning of experts that puts the neurons of dropped experts together with similar ones of those that stay)
// and Replicate-and-Quantize (copies of heavy experts in lower precision, for their load). Both ideas are known here by their abstracts
// alone; what follows is what was made of them:
//   drop   the experts with the smallest share of a calibration set's slots go, the same number in every layer; tokens take the next best
//   merge  and each hidden unit of a dropped expert (its row of W1, bias, column of W2) looks for the unit of the remaining experts whose
//          direction is the most alike. Where the cosine is at least `similarity` both become their mean, weighted by their experts' loads;
//          else the unit is lost. Output biases of those that stay are as they were.
//   replica  rows of W1 and W2 as whole multiples of max|row|/127, rounded; biases and the original stay in full precision. Computed in
//          the model's dtype: what it shows is the loss of accuracy and the load, not speed.
// Running statistics of routing stay those of training.
#pragma once

#include "models/vit.h"

#include <memory>
#include <string>
#include <vector>

namespace ermoe {

enum class Pruning { drop, merge };

struct Compression {
  double prune = 0;  // share of each layer's scored experts
  Pruning method = Pruning::drop;
  int64_t replicas = 0;     // a layer, of its most loaded experts, one each
  double similarity = 0.2;  // of hidden units that are merged
};

/// Shares of the slots by scored expert, for each MoE layer in order of depth: RoutingMetrics::load.
using ExpertLoads = std::vector<std::vector<double>>;

/// The settings of what `compress` makes of such a model. Throws InputError where it cannot: no experts, copies or regions there are
/// already, fewer experts left than a token takes, more copies than experts.
VitConfig compressed_config(const VitConfig& model, const Compression& what);

/// The ids of the experts that stay, ascending: those with the largest loads, of equal ones the lower id.
std::vector<int64_t> experts_to_keep(const std::vector<double>& loads, int64_t count);

struct Compressed {
  std::unique_ptr<Vit> model;
  int64_t lost_units = 0, merged_units = 0;  // hidden ones of dropped experts: with merge those without a counterpart, and those with one
};

/// A new model in `host`'s memory. `model` lies there too, in f32, whole and refreshed. An InputError where a router has something that
/// cannot lose experts.
Compressed compress(const ExecContext& host, Vit& model, const ExpertLoads& loads, const Compression& what);

/// A copy of a model's values in `host`'s memory, in f32, from the device that `ctx` is of.
std::unique_ptr<Vit> host_copy(const ExecContext& ctx, const ExecContext& host, Vit& model);

}  // namespace ermoe
