// The second level of a sum over rows (ops/kernels/column_sum.h): the chunks' partial sums, added in a fixed order.
#pragma once

#include "cuda/device/reduce.cuh"
#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"
#include "ops/kernels/destination.h"

#include <cstdint>

namespace ermoe::cuda {

inline constexpr int partial_lanes = 16;   // threads that share a column
inline constexpr int partial_unroll = 16;  // loads of a thread that are on their way at once: all, for up to 256 chunks

/// Several sums of one size, one after the other in `partials`, by one launch.
template <int Sums>
struct PartialSums {
  int64_t chunks, cols;
  const float* partials;          // (Sums, chunks, cols)
  Destination<float> sums[Sums];  // (cols) each; null: not wanted
};

template <int Sums>
__global__ void __launch_bounds__(warp_size* partial_lanes) sum_partials_kernel(PartialSums<Sums> work) {
  __shared__ float parts[partial_lanes][warp_size];
  Destination<float> out = work.sums[0];
#pragma unroll
  for (int i = 1; i < Sums; ++i)
    if (blockIdx.y == i) out = work.sums[i];
  if (out.data == nullptr) return;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * warp_size + threadIdx.x;
  const float* const from = work.partials + blockIdx.y * work.chunks * work.cols + column;
  float sum = 0;
  if (column < work.cols) {
    for (int64_t first = threadIdx.y; first < work.chunks; first += partial_lanes * partial_unroll) {
      float parts_of_lane[partial_unroll];
#pragma unroll
      for (int i = 0; i < partial_unroll; ++i) {
        const int64_t chunk = first + i * partial_lanes;
        parts_of_lane[i] = chunk < work.chunks ? from[chunk * work.cols] : 0.0f;
      }
#pragma unroll
      for (int i = 0; i < partial_unroll; ++i) sum += parts_of_lane[i];
    }
  }
  parts[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= work.cols) return;
  float total = out.mode == Accumulate::add ? out.data[column] : 0.0f;
#pragma unroll
  for (int lane = 0; lane < partial_lanes; ++lane) total += parts[lane][threadIdx.x];
  out.data[column] = total;
}

/// Zero where there are no chunks. Two sums of one destination, a variable that was passed twice, run one after the other.
template <int Sums>
void sum_partials(const Stream& stream, const PartialSums<Sums>& work, const char* name) {
  if (work.cols == 0) return;
  const auto launch = [&](const PartialSums<Sums>& some) {
    const dim3 grid(static_cast<unsigned>((some.cols + warp_size - 1) / warp_size), Sums), block(warp_size, partial_lanes);
    sum_partials_kernel<Sums><<<grid, block, 0, native(stream)>>>(some);
    cuda_check(cudaGetLastError(), name);
  };
  bool wanted = false, twice = false;
  for (int i = 0; i < Sums; ++i) {
    wanted |= work.sums[i].data != nullptr;
    for (int j = 0; j < i; ++j) twice |= work.sums[i].data != nullptr && work.sums[i].data == work.sums[j].data;
  }
  if (wanted && !twice) return launch(work);
  for (int i = 0; wanted && i < Sums; ++i) {
    PartialSums<Sums> one = work;
    for (int j = 0; j < Sums; ++j)
      if (j != i) one.sums[j] = {};
    launch(one);
  }
}

}  // namespace ermoe::cuda
