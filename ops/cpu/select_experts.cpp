// Selection on the CPU: tokens are independent; each keeps its best experts sorted by insertion, E·K comparisons at most.
#include "ops/kernels/select_experts.h"

#include <algorithm>
#include <cmath>

namespace ermoe::cpu {
namespace {

/// The slots of one token while they fill up.
struct Slots {
  int32_t* ids;
  int64_t begin;  // first slot of this round; those before it are settled
  int64_t end;    // filled so far
  int64_t limit;  // K

  /// Keeps the `limit` best of what was offered. Called in ascending id, so ties stay with the lower one.
  template <typename T>
  void offer(const T* order, int64_t expert) {
    int64_t at = end;
    while (at > begin && order[expert] > order[ids[at - 1]]) --at;
    if (at == limit) return;
    end = std::min(end + 1, limit);
    std::copy_backward(ids + at, ids + end - 1, ids + end);
    ids[at] = static_cast<int32_t>(expert);
  }
};

/// Fills the slots of token n. True where a score or an order is not finite.
template <typename T>
bool select_token(const SelectDims& dims, const SelectInputs<T>& in, int64_t n, int32_t* ids, uint8_t* fallback) {
  const T *scores = in.scores + n * dims.experts, *order = in.order + n * dims.experts;
  const uint8_t* allow = in.allow == nullptr ? nullptr : in.allow + n * dims.experts;
  const auto finite = [&](int64_t e) { return std::isfinite(scores[e]) && std::isfinite(order[e]); };
  const auto open = [&](int64_t e) { return finite(e) && (allow == nullptr || allow[e] != 0); };
  const auto qualifies = [&](int64_t e) { return in.threshold == nullptr || scores[e] > *in.threshold; };

  bool nonfinite = false;
  Slots slots{.ids = ids, .begin = 0, .end = 0, .limit = dims.slots};
  for (int64_t e = 0; e < dims.experts; ++e) {
    nonfinite |= !finite(e);
    if (open(e) && qualifies(e)) slots.offer(order, e);
  }
  std::fill(fallback, fallback + slots.end, uint8_t{0});
  std::fill(fallback + slots.end, fallback + dims.slots, uint8_t{1});

  if (dims.free_experts > 0) {
    for (int64_t j = 0; j < dims.free_experts && slots.end < dims.slots; ++j)
      ids[slots.end++] = static_cast<int32_t>(dims.experts + (dims.first_token + n + j) % dims.free_experts);
  } else {
    slots.begin = slots.end;
    for (int64_t e = 0; e < dims.experts; ++e)
      if (open(e) && !qualifies(e)) slots.offer(order, e);
  }
  std::fill(ids + slots.end, ids + dims.slots, -1);
  return nonfinite;
}

}  // namespace

template <typename T>
void select_experts(const SelectDims& dims, const SelectInputs<T>& in, const SelectOutputs& out) {
  int any = 0;
#pragma omp parallel for if (dims.tokens * dims.experts > 8192) schedule(static) reduction(| : any)
  for (int64_t n = 0; n < dims.tokens; ++n)
    any |= static_cast<int>(select_token(dims, in, n, out.ids + n * dims.slots, out.fallback + n * dims.slots));
  *out.nonfinite = any;
}

template void select_experts(const SelectDims&, const SelectInputs<float>&, const SelectOutputs&);
template void select_experts(const SelectDims&, const SelectInputs<double>&, const SelectOutputs&);

}  // namespace ermoe::cpu
