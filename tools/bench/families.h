// Where the time of a step went, by families of kernels: what is compared with targets, and what one asks first of a slow
// step. Read next: tools/bench/families.cpp, the table of which op belongs where.
#pragma once

#include "cuda/factory.h"

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ermoe {

enum class Family {
  experts,    // the experts' products, with the GELU that rides on them
  dense,      // products of attention, dense networks, patches and the head, with the sums of bias gradients
  attention,  // scores, softmax, weighted values
  layer_norm,
  elementwise,    // GELU, residuals, dropout, positions and the like
  routing,        // scores, statistics, selection, weights, and their backward passes
  dispatch,       // rows to the experts and back
  orthogonality,  // matrices from factors, the factors' gradients, tangent steps, retractions, what keeps bases disjoint
  optimizer,      // norm, clipping, Adam, averages
  loss,
  input,        // augmentation
  collectives,  // between ranks, while they wait for each other too
  copies,       // copies, fills and conversions outside of any op
  idle
};

/// How a family is called in a table.
std::string_view title(Family family);

/// The family of an op by its node's or its file's name; none for helpers, which belong to the op that called them.
std::optional<Family> family_of_op(std::string_view op);

/// The innermost op that has one decides; `copies` where none has.
Family family_of(const GpuActivity& activity);

struct KernelTime {
  Family family = Family::copies;
  std::string ops, name;
  int64_t calls = 0;
  double seconds = 0;
};

struct Breakdown {
  std::string fault;                 // why there is none, in one sentence; then the rest is empty
  double profiled_seconds = 0;       // from the first activity's beginning to the last one's end
  double busy_seconds = 0;           // of them, while anything ran
  std::map<Family, double> seconds;  // idle among them: what the step took beyond `busy_seconds`
  std::vector<KernelTime> kernels;   // the longest first

  bool made() const { return fault.empty() && !seconds.empty(); }
  double total() const;
  double of(Family family) const;
};

/// Collectives of one kind, and how much of their time other work ran beside them: that is hidden.
struct CollectiveTime {
  std::string name;  // of NCCL's kernel
  int64_t calls = 0;
  double seconds = 0, hidden_seconds = 0;
};

/// What ranks spend between each other, the longest kind first; nothing where there are none. A collective's kernel waits for the other
/// ranks: its time is that wait too. Activities are in the order of their start.
std::vector<CollectiveTime> collectives_of(std::span<const GpuActivity> activities);

/// Of one step, which took `step_seconds` when nobody watched: watching slows down the host, not the kernels, so gaps between
/// them are not what the watched step shows. Activities are in the order of their start.
Breakdown break_down(std::span<const GpuActivity> activities, double step_seconds);

}  // namespace ermoe
