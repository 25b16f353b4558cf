// A 128 x 128 tile of a float product, summed in float without the tensor cores: 256 threads with 8 x 8 elements each,
// operands through shared memory, the next piece on its way meanwhile. Sums are taken in chunks of 256 along k, which are then
// added: one long sum would lose two more bits.
#pragma once

#include <cstdint>

namespace ermoe::cuda {

struct TileProduct {
  static constexpr int side = 128, threads = 256, depth = 16, chunk = 256;

  /// op(A) as the tile sees it: element (k, i) lies at base[k · k_step + i · i_step], i < limit; one of the steps is 1.
  struct Operand {
    const float* base;
    int64_t k_step, i_step, limit;
  };
  struct Shared {
    alignas(16) float a[depth][side + 4], b[depth][side + 4];
  };
  float sum[8][8];

  /// Row (or column) within the tile of a thread's element `i` of 8, its place among 16 threads being `place`.
  __device__ static int index(int place, int i) { return (i / 4) * (side / 2) + place * 4 + i % 4; }
  __device__ static int place_of_row() { return threadIdx.x / 16; }
  __device__ static int place_of_column() { return threadIdx.x % 16; }

  /// sum_ij = Σ_k a(k, i) b(k, j). All threads of the block must call it; it ends with the shared memory free.
  __device__ void run(const Operand& a, const Operand& b, int64_t k_end, Shared& shared) {
    float part[8][8], next_a[8], next_b[8];
    clear(sum);
    clear(part);
    fetch(a, 0, k_end, next_a);
    fetch(b, 0, k_end, next_b);
    for (int64_t k0 = 0; k0 < k_end; k0 += depth) {
      put(a, next_a, shared.a);
      put(b, next_b, shared.b);
      __syncthreads();
      fetch(a, k0 + depth, k_end, next_a);
      fetch(b, k0 + depth, k_end, next_b);
      multiply(shared, part);
      if ((k0 + depth) % chunk == 0) add_chunk(part);
      __syncthreads();
    }
    add_chunk(part);
  }

 private:
  __device__ static void clear(float (&values)[8][8]) {
#pragma unroll
    for (int i = 0; i < 8; ++i)
#pragma unroll
      for (int j = 0; j < 8; ++j) values[i][j] = 0;
  }
  __device__ void add_chunk(float (&part)[8][8]) {
#pragma unroll
    for (int i = 0; i < 8; ++i)
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        sum[i][j] += part[i][j];
        part[i][j] = 0;
      }
  }
  struct Spot {
    int k, i;
  };
  /// The thread's element l of 8 in a piece: neighbouring threads read neighbouring addresses.
  __device__ static Spot spot(const Operand& from, int l) {
    const int at = static_cast<int>(threadIdx.x) + l * threads;
    if (from.i_step == 1) return {at / side, at % side};
    return {at % depth, at / depth};
  }
  __device__ static void fetch(const Operand& from, int64_t k0, int64_t k_end, float (&values)[8]) {
#pragma unroll
    for (int l = 0; l < 8; ++l) {
      const Spot s = spot(from, l);
      values[l] = k0 + s.k < k_end && s.i < from.limit ? from.base[(k0 + s.k) * from.k_step + s.i * from.i_step] : 0.0f;
    }
  }
  __device__ static void put(const Operand& from, const float (&values)[8], float (&to)[depth][side + 4]) {
#pragma unroll
    for (int l = 0; l < 8; ++l) {
      const Spot s = spot(from, l);
      to[s.k][s.i] = values[l];
    }
  }
  __device__ static void take(const float* row, int place, float (&values)[8]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float4 four = *reinterpret_cast<const float4*>(row + half * (side / 2) + place * 4);
      values[half * 4] = four.x;
      values[half * 4 + 1] = four.y;
      values[half * 4 + 2] = four.z;
      values[half * 4 + 3] = four.w;
    }
  }
  __device__ static void multiply(const Shared& shared, float (&part)[8][8]) {
#pragma unroll
    for (int k = 0; k < depth; ++k) {
      float a[8], b[8];
      take(shared.a[k], place_of_row(), a);
      take(shared.b[k], place_of_column(), b);
#pragma unroll
      for (int i = 0; i < 8; ++i)
#pragma unroll
        for (int j = 0; j < 8; ++j) part[i][j] += a[i] * b[j];
    }
  }
};

}  // namespace ermoe::cuda
