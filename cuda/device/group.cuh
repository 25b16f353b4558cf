// Blocks of one launch that work on one matrix together and wait for each other on the device, so that loops whose length
// depends on the data need no host. The launch must be cooperative: all of its blocks then run at the same time.
#pragma once

#include "cuda/device/patience.cuh"
#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"

#include <algorithm>
#include <cstdint>
#include <tuple>

namespace ermoe::cuda {

/// One thread's view of its group. Every thread of every member must make the same calls.
struct BlockGroup {
  unsigned* arrivals;  // of this group
  unsigned members, member;
  unsigned awaited = 0;

  /// What any member wrote before it, all members see behind it.
  __device__ void sync() {
    __syncthreads();
    if (members == 1) return;
    if (threadIdx.x == 0) {
      __threadfence();
      awaited += members;
      atomicAdd(arrivals, 1u);
      for (Patience patience; *static_cast<volatile unsigned*>(arrivals) < awaited; patience.lose()) __nanosleep(40);
      __threadfence();
    }
    __syncthreads();
  }
};

/// How `batch` matrices are shared out: group g takes the matrices g, g + groups, …
struct GroupGrid {
  unsigned groups, members;  // blocks a group
  unsigned* arrivals;        // (groups)

  __device__ BlockGroup own() const { return {arrivals + blockIdx.x / members, members, blockIdx.x % members}; }
  __device__ unsigned group() const { return blockIdx.x / members; }
};

/// Launches `kernel(GroupGrid, args...)` with one block a multiprocessor at most; no group has more members than `useful`.
/// `arrivals` is scratch for `batch` counters.
template <typename... Params, typename... Args>
void launch_groups(const Stream& stream, void (*kernel)(GroupGrid, Params...), int threads, int64_t batch, int64_t useful,
                   unsigned* arrivals, const char* name, const Args&... args) {
  if (batch == 0) return;
  const auto processors = static_cast<int64_t>(state_of(stream).multiprocessors);
  const int64_t groups = std::min(batch, processors), members = std::clamp<int64_t>(useful, 1, processors / groups);
  GroupGrid grid{static_cast<unsigned>(groups), static_cast<unsigned>(members), arrivals};
  cuda_check(cudaMemsetAsync(arrivals, 0, static_cast<size_t>(groups) * sizeof(unsigned), native(stream)), name);
  std::tuple<Params...> values(args...);
  std::apply(
      [&](Params&... value) {
        void* pointers[] = {&grid, &value...};
        cuda_check(cudaLaunchCooperativeKernel(reinterpret_cast<const void*>(kernel), dim3(grid.groups * grid.members),
                                               dim3(static_cast<unsigned>(threads)), pointers, 0, native(stream)),
                   name);
      },
      values);
}

}  // namespace ermoe::cuda
