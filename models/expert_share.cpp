#include "models/expert_share.h"

namespace ermoe {
namespace {

/// Runs of experts that differ by one at most, one for each of `ranks`.
std::vector<ExpertRange> cut(const ExpertRange& range, int ranks) {
  std::vector<ExpertRange> parts;
  for (int r = 0; r < ranks; ++r) {
    const BatchPart part = part_of_batch(range.count, r, ranks);
    parts.push_back({range.first + part.first, part.count});
  }
  return parts;
}

std::vector<int64_t> counts_of(const std::vector<ExpertRange>& parts, int64_t limit) {
  std::vector<int64_t> counts;
  for (const ExpertRange& part : parts) counts.push_back(part.below(limit).count);
  return counts;
}

std::vector<ExpertRange> laid_out(int64_t first, const std::vector<int64_t>& counts) {
  std::vector<ExpertRange> parts;
  for (const int64_t count : counts) {
    parts.push_back({first, count});
    first += count;
  }
  return parts;
}

}  // namespace

ExpertShare share_experts(const ExecContext& ctx, int64_t all) {
  const Communicator &experts = *ctx.expert_ranks, &replicas = *ctx.replica_ranks;
  check_input(experts.size() <= all, "parallel.expert: {} ranks cannot each hold some of {} experts", experts.size(), all);
  const std::vector<ExpertRange> held = cut({0, all}, experts.size());
  const ExpertRange mine = held[static_cast<size_t>(experts.rank())];
  const std::vector<ExpertRange> own = cut(mine, replicas.size());
  return {.all = all,
          .held = mine,
          .own = own[static_cast<size_t>(replicas.rank())],
          .held_by_expert_rank = counts_of(held, all),
          .own_by_replica = counts_of(own, all)};
}

ExpertShare ExpertShare::below(int64_t limit) const {
  return {.all = std::min(all, limit),
          .held = held.below(limit),
          .own = own.below(limit),
          .held_by_expert_rank = counts_of(laid_out(0, held_by_expert_rank), limit),
          .own_by_replica = counts_of(laid_out(held.first, own_by_replica), limit)};
}

}  // namespace ermoe
