// The routing plan: which token goes to which expert, in the order in which the experts' GEMMs want their rows. It is
// made once per layer and step; dispatch, the experts, combine, both backward passes and the metrics read it.
// Read next: ops/dispatch.h, ops/grouped_linear.h, ops/combine.h.
#pragma once

#include "core/context.h"

namespace ermoe {

/// Rows are the filled slots (n, k) sorted by expert, in slot order within an expert. Buffers of rows have M of them, so that no
/// size depends on the data: the first offsets[E] are filled. M is N*K, or less where it is known that so many slots stay missing.
/// Ops never read the rows beyond, and write zeros there.
struct RoutingPlan {
  int64_t tokens = 0;   // N
  int64_t slots = 0;    // K, slots a token
  int64_t experts = 0;  // E, free experts included
  Tensor expert_ids;    // (N, K) i32: the expert of each slot, -1 where nobody fills it
  Tensor counts;        // (E) i32: rows of each expert
  Tensor offsets;       // (E+1) i32: rows [offsets[e], offsets[e+1]) are expert e's
  Tensor row_slot;      // (M) i32: the flat slot n*K + k of each row; -1 beyond the filled rows
  Tensor slot_row;      // (N*K) i32: the row of each flat slot; -1 where the slot is missing
  Tensor row_token;     // (M) i32: row_slot / K; -1 beyond the filled rows

  /// Rows of the buffers, M.
  int64_t rows() const { return row_slot.numel(); }
};

/// Plan of ids (N, K) i32 in [-1, experts). The plan keeps a handle on `ids`. Throws on an id outside (on a GPU such an
/// id counts as missing).
RoutingPlan make_plan(const ExecContext& ctx, const Tensor& ids, int64_t experts);

/// The same with buffers of `most_rows` <= N*K rows, for ids of which at most so many are filled; throws where more are (on a GPU
/// the last ones count as missing then).
RoutingPlan make_plan(const ExecContext& ctx, const Tensor& ids, int64_t experts, int64_t most_rows);

/// Ids (N, K) i32 that are known without scores: flat slot i has the expert (i / each) mod experts.
Tensor ids_in_turn(const ExecContext& ctx, const Shape& shape, int64_t experts, int64_t each);

/// Drops, in place, what an expert was given beyond `capacity` >= 0 slots: ids (N, K) i32 in [-1, experts) become -1. First
/// choices of all tokens are kept before second ones, and among them tokens as `order` (N) i32 has them, which names each once (as
/// rank_tokens makes it); undefined: lower tokens before higher ones.
void limit_capacity(const ExecContext& ctx, const Tensor& ids, int64_t experts, int64_t capacity, const Tensor& order = {});

/// The ids with every token's experts moved on by one: the same loads, the wrong experts.
Tensor rotate_experts(const ExecContext& ctx, const Tensor& ids, int64_t experts);

}  // namespace ermoe
