// The grouped GEMM's products over rows, y = x W_eᵀ + b_e and dx = dy W_e, for Hopper. One block a multiprocessor walks the
// tiles; while its consumers write a tile, its producer already fetches the next one's slices. A tile's copies may read
// rows of the next expert: what they give lands in rows that are not written.
#include "cuda/device/pack.cuh"
#include "cuda/kernels/grouped_linear_hopper.cuh"
#include "cuda/runtime/check.h"
#include "cuda/runtime/tensor_map.h"

#include <algorithm>

namespace ermoe::cuda {
namespace {

using namespace hopper;

constexpr int stripe_bytes = 16 * 128;                            // 16 rows of 64 columns: a warp's piece of C on its way out
constexpr int staging_bytes = consumer_warps * 2 * stripe_bytes;  // two a warp, used in turn

/// Walks a block's tiles, in the order of rows.
template <Product P>
struct Walk {
  const int32_t* offsets;
  int experts, rows, across, index;
  int expert = 0, begin = 0, end = 0, before = 0;  // the rows of `expert`, and the tiles before them
  int first = 0, column = 0;                       // the tile

  __device__ __forceinline__ Walk(const GroupedProduct<bf16>& p, int tile_n)
      : offsets(p.offsets),
        experts(static_cast<int>(p.dims.experts)),
        rows(static_cast<int>(p.dims.rows)),
        across(static_cast<int>((columns_of<P>(p.dims) + tile_n - 1) / tile_n)),
        index(static_cast<int>(blockIdx.x)),
        end(experts > 0 ? p.offsets[1] : rows) {}

  /// Moves to the block's next tile; false behind the last one.
  __device__ __forceinline__ bool next(int tile_n) {
    const int row_tile = index / across;
    for (;;) {
      const int tiles = (end - begin + tile_m - 1) / tile_m;
      if (row_tile < before + tiles) break;
      if (expert == experts) return false;
      before += tiles;
      begin = end;
      ++expert;
      end = expert < experts ? offsets[expert + 1] : rows;
    }
    first = begin + (row_tile - before) * tile_m;
    column = (index - row_tile * across) * tile_n;
    index += static_cast<int>(gridDim.x);
    return true;
  }
  __device__ __forceinline__ bool filled() const { return expert < experts; }
};

/// One thread fetches everything.
template <Product P, int N, typename R>
__device__ __forceinline__ void produce(R& ring, const GroupedProduct<bf16>& p, const CUtensorMap* a, const CUtensorMap* b) {
  const int slices = static_cast<int>((a_pitch<P>(p.dims) + slice - 1) / slice);
  prefetch_map(a);
  prefetch_map(b);
  for (Walk<P> walk(p, N); walk.next(N);) {
    if (!walk.filled()) continue;
    for (int s = 0; s < slices; ++s) {
      const uint32_t barrier = ring.open();
      copy_box(ring.a(), a, barrier, s * slice, walk.first);
      if constexpr (P == Product::forward) {
        copy_box(ring.b(), b, barrier, s * slice, walk.column, walk.expert);
      } else {
#pragma unroll
        for (int j = 0; j < N / 64; ++j) copy_box(ring.b() + j * box_bytes, b, barrier, walk.column + 64 * j, s * slice, walk.expert);
      }
      ring.advance();
    }
  }
}

/// Where a warp's 16 rows of a tile go, and how much of them there is.
struct Target {
  bf16* c;
  const bf16* bias;  // of the tile's first column, or null
  int64_t pitch;
  int rows, columns;
  bool add;
};

/// A warp writes its rows: 64 columns at a time go through shared memory, so that stores are whole lines of 128 bytes.
template <int Sums>
__device__ __forceinline__ void write_rows(const float (&sum)[Sums], uint32_t staging, const Target& t) {
  const int lane = threadIdx.x % 32, pair = lane % 4 * 2;
#pragma unroll
  for (int piece = 0; piece < Sums / 32; ++piece) {
    const uint32_t stripe = staging + piece % 2 * stripe_bytes;  // its readers of two pieces ago have passed the last barrier
#pragma unroll
    for (int j = 0; j < 8; j += 2) {
      uint32_t m[4];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int block = piece * 8 + j + i, column = block * 8 + pair;
        float b0 = 0, b1 = 0;
        if (t.bias != nullptr && column < t.columns) {
          const auto bias = load<2>(t.bias + column);
          b0 = widen(bias.v[0]);
          b1 = widen(bias.v[1]);
        }
        m[2 * i] = pack_pair(sum[4 * block] + b0, sum[4 * block + 1] + b1);
        m[2 * i + 1] = pack_pair(sum[4 * block + 2] + b0, sum[4 * block + 3] + b1);
      }
      const int row = lane % 16, chunk = j + lane / 16;
      store_matrices(stripe + row * 128 + ((chunk ^ (row & 7)) << 4), m[0], m[1], m[2], m[3]);
    }
    __syncwarp();
    const int chunk = lane % 8, column = piece * 64 + chunk * 8;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = i * 4 + lane / 8;
      if (row < t.rows && column < t.columns)
        write_chunk(t.c + row * t.pitch + column, load_shared(stripe + row * 128 + ((chunk ^ (row & 7)) << 4)), t.add);
    }
  }
}

/// Zeros in rows that no expert fills.
template <int N>
__device__ __forceinline__ void clear_rows(const Target& t) {
  for (int i = threadIdx.x % 32; i < 16 * N / 8; i += 32) {
    const int row = i / (N / 8), column = i % (N / 8) * 8;
    if (row < t.rows && column < t.columns) *reinterpret_cast<uint4*>(t.c + row * t.pitch + column) = make_uint4(0, 0, 0, 0);
  }
}

template <Product P, int N, typename R>
__device__ __forceinline__ void consume(R& ring, const GroupedProduct<bf16>& p) {
  const int warp = threadIdx.x / 32 - 4, group = warp / 4;
  const int slices = static_cast<int>((a_pitch<P>(p.dims) + slice - 1) / slice);
  const int64_t pitch = columns_of<P>(p.dims);
  const uint32_t staging = ring.extra() + warp * 2 * stripe_bytes;
  float sum[N / 2];
  for (Walk<P> walk(p, N); walk.next(N);) {
    const int first = walk.first + warp * 16;
    const bool biased = p.bias != nullptr && walk.filled();
    const Target target{.c = static_cast<bf16*>(p.c) + first * pitch + walk.column,
                        .bias = biased ? p.bias + walk.expert * p.dims.out + walk.column : nullptr,
                        .pitch = pitch,
                        .rows = walk.end - first,
                        .columns = static_cast<int>(pitch) - walk.column,
                        .add = p.mode == Accumulate::add};
    if (walk.filled()) {
      multiply_slices(ring, group, slices, sum, [](int) {});
      write_rows(sum, staging, target);
    } else if (!target.add) {
      clear_rows<N>(target);
    }
  }
}

template <Product P, int N>
__global__ void __launch_bounds__(threads, 1)
    grouped_wgmma_kernel(const GroupedProduct<bf16> p, const __grid_constant__ CUtensorMap a, const __grid_constant__ CUtensorMap b) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) unsigned char memory[];
  Ring<P, N, staging_bytes> ring(memory);
  ring.init();
  if (threadIdx.x < 128) {
    give_up_registers<40>();
    if (threadIdx.x == 0) produce<P, N>(ring, p, &a, &b);
  } else {
    take_registers<232>();
    consume<P, N>(ring, p);
  }
#else
  __trap();
#endif
}

template <Product P, int N>
void launch(const Stream& stream, const GroupedProduct<bf16>& p) {
  constexpr auto kernel = grouped_wgmma_kernel<P, N>;
  constexpr int bytes = Ring<P, N, staging_bytes>::bytes;
  const GroupedLinearDims& d = p.dims;
  const CUtensorMap a = tensor_map({.data = p.a, .x = a_pitch<P>(d), .y = d.rows, .box_y = tile_m});
  const CUtensorMap b = tensor_map({.data = p.b, .x = d.in, .y = d.out, .z = d.experts, .box_y = P == Product::forward ? N : slice});
  const int64_t blocks = std::min<int64_t>(state_of(stream).multiprocessors, most_tiles<P>(d, tile_m, N));
  cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "cudaFuncSetAttribute");
  kernel<<<static_cast<unsigned>(blocks), threads, bytes, native(stream)>>>(p, a, b);
  cuda_check(cudaGetLastError(), "grouped_wgmma");
}

}  // namespace

template <Product P>
void grouped_wgmma(const Stream& stream, const GroupedProduct<bf16>& p) {
  switch (hopper::columns_a_tile(columns_of<P>(p.dims))) {
    case 256: return launch<P, 256>(stream, p);
    case 192: return launch<P, 192>(stream, p);
    default: return launch<P, 128>(stream, p);
  }
}

template void grouped_wgmma<Product::forward>(const Stream&, const GroupedProduct<bf16>&);
template void grouped_wgmma<Product::input>(const Stream&, const GroupedProduct<bf16>&);

}  // namespace ermoe::cuda
