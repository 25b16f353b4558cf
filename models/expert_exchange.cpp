#include "models/expert_exchange.h"

#include <algorithm>
#include <numeric>

namespace ermoe {
namespace {

/// Buffers of received rows come in steps of this share of the rows that a rank has itself, so that steps of training ask for memory of
/// few sizes.
constexpr int64_t sizes = 16;

int64_t rounded(int64_t rows, int64_t own_rows) {
  const int64_t step = std::max<int64_t>(1, own_rows / sizes);
  return std::max<int64_t>(1, (rows + step - 1) / step) * step;
}

}  // namespace

ExpertExchange::ExpertExchange(const ExecContext& ctx, const RoutingPlan& plan, const ExpertShare& share) : own_rows_(plan.rows()) {
  Communicator& ranks = *ctx.expert_ranks;
  const int64_t E = plan.experts;
  const Tensor all = ctx.empty({ranks.size() * E}, DType::i32, "routing");
  ranks.all_gather(plan.counts, all);
  ranks.settle("the experts' counts");
  const Tensor on_host = ermoe::on_host(ctx, all);
  const std::span counts = on_host.span<int32_t>();
  const auto rows = [&](int rank, int64_t expert) { return static_cast<int64_t>(counts[static_cast<size_t>(rank * E + expert)]); };
  for (int64_t begin = 0, e = 0, rank = 0; const int64_t held : share.held_by_expert_rank) {
    for (const int64_t end = e + held; e < end; ++e) {
      travel_.sends.push_back({static_cast<int>(rank), begin, rows(ranks.rank(), e)});
      begin += travel_.sends.back().rows;
    }
    ++rank;
  }
  std::vector<int32_t> offsets{0};  // (El + 1)
  int64_t begin = 0;
  for (int64_t e = share.held.first; e < share.held.end(); ++e) {
    for (int rank = 0; rank < ranks.size(); ++rank) {
      travel_.receives.push_back({rank, begin, rows(rank, e)});
      begin += travel_.receives.back().rows;
    }
    offsets.push_back(static_cast<int32_t>(begin));
  }
  plan_.tokens = rounded(begin, own_rows_);
  plan_.slots = 1;
  plan_.experts = share.held.count;
  plan_.offsets = Tensor::from<int32_t>(*ctx.allocator, {std::ssize(offsets)}, offsets, "routing");
}

Variable ExpertExchange::send(const ExecContext& ctx, const Variable& rows) const {
  return exchange_rows(ctx, *ctx.expert_ranks, rows, travel_, plan_.tokens);
}

Variable ExpertExchange::bring_back(const ExecContext& ctx, const Variable& rows) const {
  return exchange_rows(ctx, *ctx.expert_ranks, rows, travel_.back(), own_rows_);
}

}  // namespace ermoe
