// Which of a layer's experts a rank has. Two cuts, one inside the other: the expert ranks (`--parallel.expert`) cut the layer's experts
// into runs, whose matrices each of them holds and computes with; the replica ranks, which hold the same run, cut it again, and
// each keeps, steps and saves the factors of its own part alone. Read next: models/gathered_parameter.h.
#pragma once

#include "core/context.h"

#include <algorithm>
#include <cstdint>
#include <vector>

namespace ermoe {

/// Experts [first, first + count).
struct ExpertRange {
  int64_t first = 0, count = 0;

  int64_t end() const { return first + count; }
  /// Those of them below `limit`.
  ExpertRange below(int64_t limit) const { return {std::min(first, limit), std::max<int64_t>(0, std::min(end(), limit) - first)}; }
};

struct ExpertShare {
  int64_t all = 0;                           // experts of the layer, free ones included
  ExpertRange held, own;                     // of this rank; own within held
  std::vector<int64_t> held_by_expert_rank;  // how many each of the expert ranks holds
  std::vector<int64_t> own_by_replica;       // of the held ones, how many each of the replica ranks owns

  /// Of all experts below `limit`: of those that are scored, since free ones come last.
  ExpertShare below(int64_t limit) const;
  bool holds_all() const { return held.count == all; }
  bool owns_held() const { return own.count == held.count; }
};

/// Of a layer of `all` experts, for this rank of the context. One rank alone has everything. Throws `InputError` where an expert
/// rank would hold none.
ExpertShare share_experts(const ExecContext& ctx, int64_t all);

}  // namespace ermoe
