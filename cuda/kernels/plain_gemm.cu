// The matrix product without a library: 32 x 32 elements of C a block, through shared memory. It takes any shape, stride and
// alignment, and stands in where cublasLt has nothing to offer. Contract: cuda/runtime/gemm.h.
#include "cuda/device/pack.cuh"
#include "cuda/runtime/check.h"
#include "cuda/runtime/gemm.h"
#include "cuda/runtime/stream.h"

#include <algorithm>

namespace ermoe::cuda {
namespace {

constexpr int tile = 32, threads_y = 8, rows_each = tile / threads_y;

template <typename In, typename Out>
__global__ void __launch_bounds__(tile* threads_y)
    plain_gemm_kernel(GemmShape s, float alpha, const In* a, const In* b, float beta, Out* c, const Out* bias) {
  __shared__ float as[tile][tile + 1], bs[tile][tile + 1];  // op(A)[row][k], op(B)[k][column]
  const int tx = threadIdx.x, ty = threadIdx.y;
  const int64_t row0 = static_cast<int64_t>(blockIdx.x) * tile, column0 = static_cast<int64_t>(blockIdx.y) * tile;
  const int64_t row_step = s.ta == Trans::yes ? 1 : s.lda, a_step = s.ta == Trans::yes ? s.lda : 1;
  const int64_t b_step = s.tb == Trans::yes ? 1 : s.ldb, column_step = s.tb == Trans::yes ? s.ldb : 1;
  for (int64_t i = blockIdx.z; i < s.batch; i += gridDim.z) {
    const In *a_i = a + i * s.stride_a, *b_i = b + i * s.stride_b;
    float sum[rows_each] = {};
    for (int64_t k0 = 0; k0 < s.k; k0 += tile) {
#pragma unroll
      for (int j = 0; j < rows_each; ++j) {
        const int other = ty + j * threads_y;
        // Neighbouring threads read neighbouring elements, however the operand is stored.
        const int ar = s.ta == Trans::yes ? tx : other, ak = s.ta == Trans::yes ? other : tx;
        const int bk = s.tb == Trans::yes ? tx : other, bc = s.tb == Trans::yes ? other : tx;
        const bool a_in = row0 + ar < s.m && k0 + ak < s.k, b_in = column0 + bc < s.n && k0 + bk < s.k;
        as[ar][ak] = a_in ? widen(a_i[(row0 + ar) * row_step + (k0 + ak) * a_step]) : 0.0f;
        bs[bk][bc] = b_in ? widen(b_i[(k0 + bk) * b_step + (column0 + bc) * column_step]) : 0.0f;
      }
      __syncthreads();
#pragma unroll 8
      for (int k = 0; k < tile; ++k)
#pragma unroll
        for (int j = 0; j < rows_each; ++j) sum[j] += as[ty + j * threads_y][k] * bs[k][tx];
      __syncthreads();
    }
    const int64_t column = column0 + tx;
    for (int j = 0; j < rows_each; ++j) {
      const int64_t row = row0 + ty + j * threads_y;
      if (row >= s.m || column >= s.n) continue;
      Out* to = c + i * s.stride_c + row * s.ldc + column;
      float value = alpha * sum[j];
      if (bias != nullptr) value += widen(bias[column]);
      if (beta != 0) value += beta * widen(*to);
      *to = narrow<Out>(value);
    }
  }
}

}  // namespace

template <typename In, typename Out>
void plain_gemm(const Stream& stream, const GemmShape& s, float alpha, const In* a, const In* b, float beta, Out* c, const Out* bias) {
  const auto tiles = [](int64_t n) { return static_cast<unsigned>((n + tile - 1) / tile); };
  // Rows may be many millions, so they lie along x. Should columns ever be, cublasLt has them.
  const dim3 grid(tiles(s.m), tiles(s.n), static_cast<unsigned>(std::min<int64_t>(s.batch, 65535)));
  plain_gemm_kernel<<<grid, dim3(tile, threads_y), 0, native(stream)>>>(s, alpha, a, b, beta, c, bias);
  cuda_check(cudaGetLastError(), "plain_gemm");
}

template void plain_gemm(const Stream&, const GemmShape&, float, const float*, const float*, float, float*, const float*);
template void plain_gemm(const Stream&, const GemmShape&, float, const bf16*, const bf16*, float, bf16*, const bf16*);
template void plain_gemm(const Stream&, const GemmShape&, float, const bf16*, const bf16*, float, float*, const float*);

}  // namespace ermoe::cuda
