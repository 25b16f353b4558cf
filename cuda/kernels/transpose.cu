// Turning matrices over on the GPU: tiles of 32 by 32 go through shared memory, so that rows are read and written whole. Bound by
// memory. Contract: ops/kernels/transpose.h.
#include "ops/kernels/transpose.h"

#include "core/bf16.h"
#include "cuda/device/grid.cuh"
#include "cuda/device/pack.cuh"
#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"

namespace ermoe::cuda {
namespace {

constexpr int tile = 32, down = 8, threads = tile * down;  // threads (tile, down): each takes four elements

template <typename T>
__global__ void __launch_bounds__(threads) transpose_kernel(TransposeDims dims, const T* x, T* y, Accumulate mode) {
  __shared__ float staged[tile][tile + 1];  // a column more: a column's elements lie in different banks
  const int64_t across = (dims.n + tile - 1) / tile, tiles = across * ((dims.m + tile - 1) / tile);
  const int64_t matrix = blockIdx.x / tiles, at = blockIdx.x % tiles, row = at / across * tile, column = at % across * tile;
  const T* const from = x + matrix * dims.m * dims.n;
  T* const to = y + matrix * dims.m * dims.n;
  const auto lane = static_cast<int>(threadIdx.x);
  for (auto i = static_cast<int>(threadIdx.y); i < tile; i += down)
    if (row + i < dims.m && column + lane < dims.n) staged[i][lane] = widen(from[(row + i) * dims.n + column + lane]);
  __syncthreads();
  for (auto i = static_cast<int>(threadIdx.y); i < tile; i += down) {
    if (column + i >= dims.n || row + lane >= dims.m) continue;
    T& out = to[(column + i) * dims.m + row + lane];
    out = narrow<T>(mode == Accumulate::add ? widen(out) + staged[lane][i] : staged[lane][i]);
  }
}

}  // namespace

template <typename T>
void transpose(const Stream& stream, const TransposeDims& dims, const T* x, T* y, Accumulate mode) {
  if (dims.batch * dims.m * dims.n == 0) return;
  const int64_t blocks = dims.batch * blocks_for(dims.m, tile) * blocks_for(dims.n, tile);
  transpose_kernel<<<static_cast<unsigned>(blocks), dim3(tile, down), 0, native(stream)>>>(dims, x, y, mode);
  cuda_check(cudaGetLastError(), "transpose");
}

template void transpose(const Stream&, const TransposeDims&, const float*, float*, Accumulate);
template void transpose(const Stream&, const TransposeDims&, const bf16*, bf16*, Accumulate);

}  // namespace ermoe::cuda
