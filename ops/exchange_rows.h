// Rows that travel between ranks: each sends some of its own to every other. Its backward is the same exchange the other way round.
// Read next: models/expert_exchange.h.
#pragma once

#include "autograd/tape.h"

#include <vector>

namespace ermoe {

/// Which rows this rank sends, and where it puts what it receives; see Communicator::exchange_blocks. The blocks of either lie side by side
/// from row 0 on, in any order.
struct RowTravel {
  std::vector<RowBlock> sends, receives;

  int64_t sent() const { return rows_of(sends); }
  int64_t received() const { return rows_of(receives); }
  RowTravel back() const { return {receives, sends}; }

 private:
  static int64_t rows_of(const std::vector<RowBlock>& blocks) {
    int64_t rows = 0;
    for (const RowBlock& b : blocks) rows += b.rows;
    return rows;
  }
};

/// y (rows, D), rows >= travel.received(): what the ranks of `comm` send this one, then zeros. x (n, D), n >= travel.sent(): what lies
/// behind the sent rows stays here, without a gradient. All ranks of `comm` call it, and their backward passes come by in the same order.
/// `comm` must outlive the tape.
Variable exchange_rows(const ExecContext& ctx, Communicator& comm, const Variable& x, const RowTravel& travel, int64_t rows);

}  // namespace ermoe
