// The experts' feed-forward network where ranks hold some of the experts each: rows travel to the ranks that hold their experts, and what
// comes out of them travels back. Both go by chunks: one chunk's rows travel while another's are computed.
// Read first: ops/grouped_mlp.h. Read next: models/expert_travel.h.
#pragma once

#include "ops/mlp.h"

#include <vector>

namespace ermoe {

/// A run of the experts that each rank holds, and the rows of these experts. What comes here of them lies side by side.
struct RowChunk {
  std::vector<RowBlock> sends;            // of this rank's rows, to the ranks that hold their experts
  std::vector<RowBlock> receives;         // of what comes here, in the order of experts and, within each, of ranks
  int64_t first_row = 0, rows = 0;        // of what comes here
  int64_t first_expert = 0, experts = 0;  // of the held ones
};

/// The way of the rows of one layer and one forward pass. All ranks of a communicator have as many chunks.
struct RowTravel {
  std::vector<RowChunk> chunks;  // one after another, by rows and by experts
  Tensor offsets;                // i32: those of each chunk's experts and its end, counted from its first row; one chunk after another
  int64_t rows = 0;              // R, of buffers for what comes here: so many or fewer come
  int64_t sent = 0;              // of this rank's rows, those before are sent
};

/// y (N, O): row i < sent is w2[e] gelu(w1[e] x_i + b1[e]) + b2[e], e the expert of row i, on whichever rank of `comm` holds it; zeros
/// in the others. x (N, I), sorted by expert; the parameters of the experts that this rank holds, each with an axis of them in front. All
/// ranks of `comm` call it, and their backward passes come by in the same order. `comm` must outlive the tape.
Variable spread_mlp(const ExecContext& ctx, Communicator& comm, const Variable& x, const MlpParameters& p, const RowTravel& travel);

}  // namespace ermoe
