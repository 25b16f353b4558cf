// Should each rank hold all experts, or should some hold them together? What each way sends in a step, counted from the sizes of the
// model and the batch, and how long that takes over links that were measured. Held by all, experts' gradients are added up and their
// matrices gathered; held together, tokens travel instead. Nothing here talks to other ranks: tools/link_probe.h does.
#pragma once

#include "models/vit.h"
#include "tools/run_config.h"

#include <string>
#include <vector>

namespace ermoe {

/// What decides how much ranks send. Elements of one layer's one expert, unless said otherwise.
struct SharedSizes {
  int64_t layers = 0;            // with experts
  int64_t experts = 0;           // of a layer, free ones included
  int64_t scored_experts = 0;    // of them
  int64_t matrix_elements = 0;   // of what is made from factors: gradients are added up, matrices gathered
  int64_t matrices = 0;          // that these are
  int64_t basis_elements = 0;    // of a scored one's routing basis that all ranks read; 0: each makes all
  int64_t direct_elements = 0;   // of what is trained as it is: biases, and plain experts' matrices
  int64_t other_elements = 0;    // of the whole model: weights that no rank holds for others
  int64_t width = 0;             // D
  double rows = 0;               // of a layer that a rank sends to experts in a step, K a token: the mean over ranks
  int64_t micro_batches = 1;     // of a step
  int64_t forward_passes = 1;    // of a micro-batch: 2 where blocks are recomputed
  DType compute = DType::f32;    // of matrices and rows
  DType reduction = DType::f32;  // of the gradients of matrices
};

/// Of a model whose sizes are all known; of two towers the experts of the image tower are counted, and all other weights. `compute` is what
/// ops compute in.
SharedSizes shared_sizes(const RunConfig& config, int ranks, DType compute);

/// How often a step of this run writes a gradient, as Vit::move_to wants to know it: for ranks that add up in f32, as if many times.
GradWrites gradient_writes(const RunConfig& config, int ranks);

/// What one rank sends in a step, the mean over ranks.
struct Traffic {
  double bytes = 0;
  int64_t calls = 0;

  Traffic& operator+=(const Traffic& other);
};

/// How collectives that are begun together are paid for: one after the other, as over MPI, or as one, as over NCCL.
enum class Begun { apart, together };

struct ExpertTraffic {
  int64_t expert_ranks = 1;
  Traffic reductions;  // of gradients: where there is a GPU, beside the backward pass
  Traffic gathers;     // of matrices and values, which the next forward pass waits for
  Traffic exchanges;   // of tokens and their gradients, with an even load; nothing hides them

  double bytes() const { return reductions.bytes + gathers.bytes + exchanges.bytes; }
};

/// Of experts that `expert_ranks` of `ranks` hold together.
ExpertTraffic expert_traffic(const SharedSizes& sizes, int ranks, int64_t expert_ranks, Begun begun);
/// Of all other weights, the same whoever holds the experts.
Traffic other_traffic(const SharedSizes& sizes, int ranks);

/// How many ranks can hold the experts of a layer together: 1 first, then each divisor of `ranks` that is not above `experts`.
std::vector<int64_t> expert_rank_choices(int ranks, int64_t experts);

/// What a communicator takes: seconds a call, and bytes a second that each rank sends meanwhile.
struct Link {
  double latency = 0, rate = 0;

  double seconds(const Traffic& traffic) const;
};
struct Links {
  Link reduce, exchange;  // reductions and gathers; rows
};

/// Whether ranks add up gradients beside the backward pass: GPUs do.
enum class Overlap { none, backward_pass };

double predicted_seconds(const ExpertTraffic& traffic, const Links& links);

/// Two lines for the user: bytes of each way, and which is predicted to be faster. Of at least one way.
std::string describe_choice(const std::vector<ExpertTraffic>& ways, const Traffic& other, const Links& links, Overlap overlap);

/// Steps of a run whose experts so many ranks hold together.
struct TimedChoice {
  int64_t expert_ranks = 1;
  double seconds = 0;  // of a step, on the rank that takes longest
};

/// Of at least one; of equal ones the first.
const TimedChoice& fastest_of(const std::vector<TimedChoice>& choices);
/// A line of what was timed and one for each choice, of which the fastest is marked as taken.
std::string describe_timings(const std::vector<TimedChoice>& choices, int64_t steps);

}  // namespace ermoe
