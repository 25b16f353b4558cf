// Some experts have a copy, which takes half of their tokens: what evens out loads where a model is used. Read first: ops/routing_plan.h.
#pragma once

#include "core/context.h"

namespace ermoe {

/// ids (N, K) i32 where slots of expert replica_of[j] become `first` + j in every other token of an image: those whose number in the image
/// has an odd number of ones in binary, so that neither rows nor columns of patches go together. N is a multiple of `tokens_an_image`, and
/// an image's tokens lie side by side: what an image says does not depend on its batch. replica_of (R) f32 or f64, whole numbers.
Tensor share_with_replicas(const ExecContext& ctx, const Tensor& ids, const Tensor& replica_of, int64_t first, int64_t tokens_an_image);

}  // namespace ermoe
