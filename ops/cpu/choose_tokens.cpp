// Choosing tokens on the CPU: experts and groups are independent; each finds its best tokens by partial sorting.
#include "ops/kernels/choose_tokens.h"

#include <cmath>
#include <vector>

namespace ermoe::cpu {
namespace {

/// Expert e among tokens [first, first + n).
template <typename T>
void choose_of_group(const ChoiceDims& dims, const T* scores, const uint8_t* allow, int64_t e, int64_t first, int64_t n, uint8_t* taken) {
  std::vector<int64_t> open;  // slots of the (N, E) tables, in the order of tokens
  for (int64_t token = first; token < first + n; ++token) {
    const int64_t at = token * dims.experts + e;
    taken[at] = 0;
    if (std::isfinite(scores[at]) && (allow == nullptr || allow[at] != 0)) open.push_back(at);
  }
  const int64_t wanted = dims.taken_of(n);
  if (wanted < std::ssize(open)) {
    const auto better = [&](int64_t a, int64_t b) { return scores[a] != scores[b] ? scores[a] > scores[b] : a < b; };
    std::nth_element(open.begin(), open.begin() + wanted, open.end(), better);
    open.resize(static_cast<size_t>(wanted));
  }
  for (const int64_t at : open) taken[at] = 1;
}

}  // namespace

template <typename T>
void choose_tokens(const ChoiceDims& dims, const T* scores, const uint8_t* allow, uint8_t* taken) {
  const int64_t columns = dims.groups() * dims.experts;
#pragma omp parallel for if (dims.tokens * dims.experts > 8192) schedule(static)
  for (int64_t i = 0; i < columns; ++i) {
    const int64_t g = i / dims.experts;
    choose_of_group(dims, scores, allow, i % dims.experts, g * dims.group, dims.size_of(g), taken);
  }
}

template void choose_tokens(const ChoiceDims&, const float*, const uint8_t*, uint8_t*);
template void choose_tokens(const ChoiceDims&, const double*, const uint8_t*, uint8_t*);

}  // namespace ermoe::cpu
