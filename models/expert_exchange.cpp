#include "models/expert_exchange.h"

#include "core/accumulate.h"
#include "core/flat.h"
#include "ops/combine.h"
#include "ops/dispatch.h"

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

}  // namespace

ExpertExchange::ExpertExchange(const ExecContext& ctx, const RoutingPlan& plan, const ExpertShare& share) : own_rows_(plan.rows()) {
  Communicator& ranks = *ctx.expert_ranks;
  const int64_t E = plan.experts;
  const Tensor all = ctx.empty({ranks.size() * E}, DType::i32, "routing");
  ranks.all_gather(plan.counts, all);
  const Tensor on_host = ermoe::on_host(ctx, all);  // (W, E), W the expert ranks
  const std::span counts = on_host.span<int32_t>();
  const int32_t* own = counts.data() + ranks.rank() * E;
  for (const int64_t held : share.held_by_expert_rank) {
    counts_.sends.push_back(std::reduce(own, own + held, int64_t{0}));
    own += held;
  }
  std::vector<int32_t> ids;  // of each received row, among the held experts
  for (int64_t w = 0; w < ranks.size(); ++w) {
    const size_t before = ids.size();
    for (int64_t e = 0; e < share.held.count; ++e) {
      const int32_t rows = counts[static_cast<size_t>(w * E + share.held.first + e)];
      ids.insert(ids.end(), static_cast<size_t>(rows), static_cast<int32_t>(e));
    }
    counts_.receives.push_back(static_cast<int64_t>(ids.size() - before));
  }
  const int64_t rows = rounded(std::ssize(ids), own_rows_);
  ids.resize(static_cast<size_t>(rows), -1);
  plan_ = make_plan(ctx, Tensor::from<int32_t>(*ctx.allocator, {rows, 1}, ids, "routing"), share.held.count);
}

Variable ExpertExchange::send(const ExecContext& ctx, const Variable& rows) const {
  return dispatch(ctx, exchange_rows(ctx, *ctx.expert_ranks, rows, counts_, plan_.tokens), plan_);
}

Variable ExpertExchange::bring_back(const ExecContext& ctx, const Variable& rows) const {
  const Tensor ones = ctx.empty({plan_.tokens, 1}, master_of(rows.dtype()), "routing");
  fill(ones, 1);
  return exchange_rows(ctx, *ctx.expert_ranks, combine(ctx, rows, Variable(ones), plan_), counts_.back(), own_rows_);
}

}  // namespace ermoe
