// Rows that travel between ranks: each sends some of its own to every other. Its backward is the same exchange the other way round.
// Read next: models/expert_exchange.h.
#pragma once

#include "autograd/tape.h"

#include <numeric>
#include <vector>

namespace ermoe {

/// How many rows this rank sends to and receives from each rank of a communicator.
struct RowCounts {
  std::vector<int64_t> sends, receives;

  int64_t sent() const { return std::reduce(sends.begin(), sends.end()); }
  int64_t received() const { return std::reduce(receives.begin(), receives.end()); }
  RowCounts back() const { return {receives, sends}; }
};

/// y (rows, D), rows >= counts.received(): what the ranks of `comm`, in their order, send this one, then zeros. x (n, D), n >=
/// counts.sent(): the rows for rank 0, then those for rank 1, …; what lies behind stays here, without a gradient. All ranks of `comm` call
/// it, and their backward passes come by in the same order. `comm` must outlive the tape.
Variable exchange_rows(const ExecContext& ctx, Communicator& comm, const Variable& x, const RowCounts& counts, int64_t rows);

}  // namespace ermoe
