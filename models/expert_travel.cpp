#include "models/expert_travel.h"

#include <algorithm>

namespace ermoe {
namespace {

/// Buffers of received rows come in steps of this share of the rows that a rank has itself, so that steps of training ask for memory of
/// few sizes.
constexpr int64_t sizes = 16;

int64_t rounded(int64_t rows, int64_t own_rows) {
  const int64_t step = std::max<int64_t>(1, own_rows / sizes);
  return std::max<int64_t>(1, (rows + step - 1) / step) * step;
}

/// How many rows each rank has for each expert.
class RowCounts {
 public:
  RowCounts(const ExecContext& ctx, const RoutingPlan& plan) : experts_(plan.experts) {
    Communicator& ranks = *ctx.expert_ranks;
    const Tensor all = ctx.empty({ranks.size() * experts_}, DType::i32, "routing");
    ranks.all_gather(plan.counts, all);
    ranks.settle("the experts' counts");
    counts_ = on_host(ctx, all);
  }
  int64_t of(int rank, int64_t expert) const { return counts_.data<int32_t>()[rank * experts_ + expert]; }

 private:
  int64_t experts_;
  Tensor counts_;
};

/// The experts of a chunk that a rank holds, of those that it holds in all.
ExpertRange part_of(const ExpertRange& held, int64_t chunk, int64_t chunks) {
  const BatchPart part = part_of_batch(held.count, static_cast<int>(chunk), static_cast<int>(chunks));
  return {held.first + part.first, part.count};
}

/// What this rank sends of a chunk. `begins`: the first of its rows for each expert.
std::vector<RowBlock> sends_of(const ExecContext& ctx, const ExpertShare& share, const std::vector<int64_t>& begins, int64_t chunk,
                               int64_t chunks) {
  std::vector<RowBlock> sends;
  ExpertRange held;
  for (int rank = 0; rank < ctx.expert_ranks->size(); ++rank) {
    held = {held.end(), share.held_by_expert_rank[static_cast<size_t>(rank)]};
    const ExpertRange part = part_of(held, chunk, chunks);
    for (int64_t e = part.first; e < part.end(); ++e) {
      const auto i = static_cast<size_t>(e);
      sends.push_back({rank, begins[i], begins[i + 1] - begins[i]});
    }
  }
  return sends;
}

}  // namespace

RowTravel expert_travel(const ExecContext& ctx, const RoutingPlan& plan, const ExpertShare& share) {
  const RowCounts counts(ctx, plan);
  const int ranks = ctx.expert_ranks->size();
  const int64_t chunks = std::clamp<int64_t>(ctx.expert_chunks, 1, std::ranges::max(share.held_by_expert_rank));
  std::vector<int64_t> begins{0};  // of this rank's own rows
  for (int64_t e = 0; e < plan.experts; ++e) begins.push_back(begins.back() + counts.of(ctx.expert_ranks->rank(), e));
  RowTravel travel{.chunks = {}, .offsets = {}, .rows = 0, .sent = begins.back()};
  std::vector<int32_t> offsets;  // of all chunks
  int64_t came = 0;
  for (int64_t i = 0; i < chunks; ++i) {
    const ExpertRange part = part_of(share.held, i, chunks);
    RowChunk chunk{.sends = sends_of(ctx, share, begins, i, chunks),
                   .receives = {},
                   .first_row = came,
                   .first_expert = part.first - share.held.first,
                   .experts = part.count};
    offsets.push_back(0);
    for (int64_t e = part.first; e < part.end(); ++e) {
      for (int rank = 0; rank < ranks; ++rank) {
        chunk.receives.push_back({rank, came, counts.of(rank, e)});
        came += chunk.receives.back().rows;
      }
      offsets.push_back(static_cast<int32_t>(came - chunk.first_row));
    }
    chunk.rows = came - chunk.first_row;
    travel.chunks.push_back(std::move(chunk));
  }
  travel.rows = rounded(came, plan.rows());
  travel.offsets = Tensor::from<int32_t>(*ctx.allocator, {std::ssize(offsets)}, offsets, "routing");
  return travel;
}

}  // namespace ermoe
