// Which experts each token goes to, from scores that somebody else computed. Not on the tape: the choice has no
// gradient. Read next: ops/combine_weights.h, ops/routing_plan.h.
#pragma once

#include "core/context.h"

namespace ermoe {

struct SelectArgs {
  Tensor scores;             // (N, E) f32 or f64: what the threshold is compared with
  Tensor order;              // (N, E): what decides who comes first; undefined: the scores
  int64_t slots = 1;         // K, at most E plus the free experts
  Tensor threshold;          // (1) of the scores' dtype; undefined: every expert qualifies
  Tensor allow;              // (N, E) u8, 0 forbids; undefined: everything is allowed
  int64_t free_experts = 0;  // experts with ids from E on, scored by nothing and open to every token
};

struct Selection {
  Tensor ids;        // (N, K) i32, -1 where nobody fills the slot
  Tensor fallback;   // (N, K) u8, 1 where the slot was not filled by a scored expert that qualified
  Tensor nonfinite;  // (1) i32, 1 where any score or order is NaN or infinite
};

/// An allowed expert qualifies where its score is above the threshold. The K best qualified, by `order`, take the
/// slots; ties go to the lower id. Where fewer than K qualify, the free experts fill the slots left, each at most once,
/// in id order starting at (n mod their number), n counted from the first token of all ranks; without free experts, the next best allowed
/// by `order` do. What is still empty is missing. A NaN or an infinity never routes.
Selection select_experts(const ExecContext& ctx, const SelectArgs& args);

}  // namespace ermoe
