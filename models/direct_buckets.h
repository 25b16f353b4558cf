// The gradients of direct parameters as ranks add them up: in buckets, one for each depth of the model, so that the deepest can travel
// while the others are still being made. Each rank ends up with the sums of its own part of each bucket, steps the weights of that
// part, and gathers the others'. Read next: models/grad_sync.h.
#pragma once

#include "autograd/memory/parameter_arena.h"
#include "core/context.h"

#include <vector>

namespace ermoe {

struct DirectBucket {
  enum class Ranks { all, replicas };  // who adds up: experts' parameters are those of the replica ranks alone
  Ranks ranks = Ranks::all;
  int64_t depth = 0;           // complete when everything from this depth on is
  int64_t begin = 0, end = 0;  // elements of the arena's direct sections
  int64_t own_begin = 0, own_end = 0;

  Communicator& comm(const ExecContext& ctx) const { return ranks == Ranks::all ? *ctx.comm : *ctx.replica_ranks; }
  /// Of a direct section, what is in the bucket, and this rank's part of that.
  Tensor all_of(const Tensor& section) const { return section.window(begin, {end - begin}); }
  Tensor own_of(const Tensor& section) const { return section.window(own_begin, {own_end - own_begin}); }
};

/// All of the direct sections, in the order of memory. One rank owns everything.
std::vector<DirectBucket> direct_buckets(const ExecContext& ctx, const ParameterArena& arena);

}  // namespace ermoe
