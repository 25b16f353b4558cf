// Selection on the GPU: a group of 8 or 32 threads takes a token and finds its best expert, then the next best, and so on, each
// time going through the scores again; they stay in the first-level cache. It moves a few bytes a token and expert, so time is
// the launch's. Comparisons alone decide, hence the same choices as on the CPU. Contract: ops/kernels/select_experts.h.
#include "ops/kernels/select_experts.h"

#include "cuda/device/grid.cuh"
#include "cuda/device/ranked.cuh"
#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"

namespace ermoe::cuda {
namespace {

constexpr int threads = 256;

/// One token's row of everything.
struct Row {
  const float *scores, *order;
  const uint8_t* allow;
  float threshold;
  bool any_score;  // no threshold

  __device__ bool finite(int32_t e) const { return isfinite(scores[e]) && isfinite(order[e]); }
  __device__ bool qualifies(int32_t e) const { return any_score || scores[e] > threshold; }
  /// The value that open expert e is ordered by, if it qualifies (or not, as wanted); a NaN where it is no candidate.
  __device__ float candidate(int32_t e, bool qualified) const {
    const bool open = finite(e) && (allow == nullptr || allow[e] != 0);
    return open && qualifies(e) == qualified ? order[e] : NAN;
  }
};

template <int G>
__global__ void __launch_bounds__(threads) select_kernel(SelectDims dims, SelectInputs<float> in, SelectOutputs out) {
  const int64_t token = (static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x) / G, at = token * dims.experts;
  const bool live = token < dims.tokens;
  const Row row{in.scores + at, in.order + at, in.allow == nullptr ? nullptr : in.allow + at,
                in.threshold == nullptr ? 0.0f : *in.threshold, in.threshold == nullptr};
  bool nonfinite = false;
  if (live)
    for (auto e = static_cast<int32_t>(threadIdx.x % G); e < dims.experts; e += G) nonfinite |= !row.finite(e);
  if (__syncthreads_or(static_cast<int>(nonfinite)) != 0 && threadIdx.x == 0) atomicOr(out.nonfinite, 1);
  if (!live) return;

  const bool writes = threadIdx.x % G == 0;
  int64_t filled = 0;
  const auto fill = [&](int64_t id, uint8_t fallback) {
    if (writes) {
      out.ids[token * dims.slots + filled] = static_cast<int32_t>(id);
      out.fallback[token * dims.slots + filled] = fallback;
    }
    ++filled;
  };
  const auto fill_best = [&](bool qualified) {
    Ranked last = best_rank();
    while (filled < dims.slots) {
      last = next_of_group<G>(dims.experts, last, [&](int32_t e) { return row.candidate(e, qualified); });
      if (last.id == worst_rank().id) return;
      fill(last.id, qualified ? 0 : 1);
    }
  };
  fill_best(true);
  if (dims.free_experts > 0) {
    for (int64_t j = 0; j < dims.free_experts && filled < dims.slots; ++j)
      fill(dims.experts + (dims.first_token + token + j) % dims.free_experts, 1);
  } else if (!row.any_score) {
    fill_best(false);
  }
  while (filled < dims.slots) fill(-1, 1);
}

}  // namespace

template <typename T>
void select_experts(const Stream& stream, const SelectDims& dims, const SelectInputs<T>& in, const SelectOutputs& out) {
  cuda_check(cudaMemsetAsync(out.nonfinite, 0, sizeof(int32_t), native(stream)), "select_experts");
  if (dims.tokens == 0) return;
  if (dims.experts <= 8)
    select_kernel<8><<<blocks_for(dims.tokens, threads / 8), threads, 0, native(stream)>>>(dims, in, out);
  else
    select_kernel<32><<<blocks_for(dims.tokens, threads / 32), threads, 0, native(stream)>>>(dims, in, out);
  cuda_check(cudaGetLastError(), "select_experts");
}

template void select_experts(const Stream&, const SelectDims&, const SelectInputs<float>&, const SelectOutputs&);

}  // namespace ermoe::cuda
