// Which features lie closest to a query's: images for words, or words for an image.
#pragma once

#include "core/tensor.h"

#include <cstdint>
#include <vector>

namespace ermoe {

struct Match {
  int64_t index = 0;  // of the candidate
  float score = 0;    // cosine
};

/// The `count` (or all, where there are fewer) of `candidates` (N, P) closest to each of `queries` (Q, P), best first: Q lists. Features
/// of length 1, f32, on the host; N may be 0. What scores the same stands in the order of the candidates, a score that is not a
/// number behind all others. Each score is summed in the same order wherever its rows stand, so that equal rows score equally and neither
/// threads nor neighbours change a ranking. Throws `Error` for shapes that do not fit.
std::vector<std::vector<Match>> nearest(const Tensor& queries, const Tensor& candidates, int64_t count);

}  // namespace ermoe
