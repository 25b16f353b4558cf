// The best of a group of neighbouring threads, ties to the lower id: how the kernels of routing walk a token's experts from the
// best to the worst without storing them. A group's threads must stay together; groups of one warp need not.
#pragma once

#include <cstdint>

namespace ermoe::cuda {

struct Ranked {
  float value;
  int32_t id;
};

/// Behind everything, and before everything.
__device__ inline Ranked worst_rank() { return {-INFINITY, INT32_MAX}; }
__device__ inline Ranked best_rank() { return {INFINITY, -1}; }

/// True where `a` comes before `b`. Neither may be a NaN.
__device__ inline bool comes_before(const Ranked& a, const Ranked& b) { return a.value > b.value || (a.value == b.value && a.id < b.id); }

/// The threads of a warp that belong to the calling thread's group of G, a power of two.
template <int G>
__device__ unsigned group_mask() {
  if constexpr (G == 32)
    return 0xffffffffu;
  else
    return ((1u << G) - 1) << (threadIdx.x % 32 / G * G);
}

/// The first of all candidates e < experts that come behind `previous`; worst_rank() where there is none. `candidate(e)` is the
/// expert's value; a NaN is none. Every thread of the group gets the answer.
template <int G, typename Candidate>
__device__ Ranked next_of_group(int64_t experts, const Ranked& previous, const Candidate& candidate) {
  Ranked best = worst_rank();
  for (auto e = static_cast<int32_t>(threadIdx.x % G); e < experts; e += G) {
    const Ranked own{candidate(e), e};
    if (!isnan(own.value) && comes_before(previous, own) && comes_before(own, best)) best = own;
  }
#pragma unroll
  for (int step = G / 2; step > 0; step /= 2) {
    const Ranked other{__shfl_xor_sync(group_mask<G>(), best.value, step, G), __shfl_xor_sync(group_mask<G>(), best.id, step, G)};
    if (comes_before(other, best)) best = other;
  }
  return best;
}

}  // namespace ermoe::cuda
