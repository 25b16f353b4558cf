// The grouped GEMM's products over rows, y = x W_eᵀ + b_e and dx = dy W_e, for Hopper. One block a multiprocessor walks the
// tiles; while its consumers write a tile, its producer already fetches the next one's slices. A tile's copies may read
// rows of the next expert: what they give lands in rows that are not written. GELU and its derivative are applied on the
// way out, which saves a pass over the widest tensors of the layer; with the derivative GELU's output is made again, which
// saves keeping it.
#include "cuda/device/gelu.cuh"
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
        end(experts > 0 ? rows_end(p.offsets, 0, rows) : rows) {}

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
      end = expert < experts ? rows_end(offsets, expert, rows) : rows;
    }
    first = begin + (row_tile - before) * tile_m;
    column = (index - row_tile * across) * tile_n;
    index += static_cast<int>(gridDim.x);
    return true;
  }
  __device__ __forceinline__ bool filled() const { return expert < experts; }
};

/// One thread fetches everything.
template <Product P, int N, Finish F, typename R>
__device__ __forceinline__ void produce(R& ring, const GroupedProduct<bf16>& p, const CUtensorMap* a, const CUtensorMap* b,
                                        const CUtensorMap* pre) {
  const int slices = static_cast<int>((a_pitch<P>(p.dims) + slice - 1) / slice);
  prefetch_map(a);
  prefetch_map(b);
  for (Walk<P> walk(p, N); walk.next(N);) {
    if (!walk.filled()) continue;
    if constexpr (F == Finish::gelu_slope)
      for (int j = 0; j < N / 64; ++j) prefetch_box(pre, walk.column + 64 * j, walk.first);
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
  bf16* second;
  const bf16* bias;  // of the tile's first column, or null
  int64_t pitch;
  int rows, columns;
  bool add;
};

/// A lane's four chunks of 8 columns of a piece of 64: a warp takes whole lines of 128 bytes.
template <typename Fn>
__device__ __forceinline__ void for_each_chunk(const Target& t, int piece, Fn&& fn) {
  const int lane = threadIdx.x % 32, chunk = lane % 8, column = piece * 64 + chunk * 8;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int row = i * 4 + lane / 8;
    if (row < t.rows && column < t.columns) fn(i, row * t.pitch + column, row * 128 + ((chunk ^ (row & 7)) << 4));
  }
}

using Chunks = uint4[4];

/// What C holds before this tile is written: with gelu_slope, the pre-activation.
__device__ __forceinline__ void fetch_pre(const Target& t, int piece, Chunks& to) {
  for_each_chunk(t, piece, [&](int i, int64_t at, int) { to[i] = *reinterpret_cast<const uint4*>(t.c + at); });
}

/// Sums start from the bias: its loads all go out at once here, where on the way out each would be waited for.
template <int Sums>
__device__ __forceinline__ void start_from_bias(float (&sum)[Sums], const Target& t) {
#pragma unroll
  for (int j = 0; j < Sums / 4; ++j) {
    const int column = 8 * j + static_cast<int>(threadIdx.x) % 4 * 2;
    const auto bias = t.bias != nullptr && column < t.columns ? load<2>(t.bias + column) : Pack<bf16, 2>{};
    sum[4 * j] = sum[4 * j + 2] = widen(bias.v[0]);
    sum[4 * j + 1] = sum[4 * j + 3] = widen(bias.v[1]);
  }
  settle(sum);
  multiply_fence();
}

/// The sums of 64 columns as bf16 into shared memory; chunks permuted as in the swizzle of TMA.
template <int Sums>
__device__ __forceinline__ void stage_piece(const float (&sum)[Sums], int piece, uint32_t stripe) {
  const int lane = threadIdx.x % 32, row = lane % 16;
#pragma unroll
  for (int j = 0; j < 8; j += 2) {
    uint32_t m[4];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int block = piece * 8 + j + i;
      m[2 * i] = pack_pair(sum[4 * block], sum[4 * block + 1]);
      m[2 * i + 1] = pack_pair(sum[4 * block + 2], sum[4 * block + 3]);
    }
    const int chunk = j + lane / 16;
    store_matrices(stripe + row * 128 + ((chunk ^ (row & 7)) << 4), m[0], m[1], m[2], m[3]);
  }
}

/// A warp writes its rows. `ahead`: with gelu_slope, the pre-activation's chunks of the first piece.
template <Finish F, int Sums>
__device__ __forceinline__ void write_rows(const float (&sum)[Sums], uint32_t staging, const Target& t, Chunks& ahead) {
#pragma unroll
  for (int piece = 0; piece < Sums / 32; ++piece) {
    const uint32_t stripe = staging + piece % 2 * stripe_bytes;  // its readers of two pieces ago have passed the last barrier
    Chunks pre;
    if constexpr (F == Finish::gelu_slope) {
#pragma unroll
      for (int i = 0; i < 4; ++i) pre[i] = ahead[i];
      if (piece + 1 < Sums / 32) fetch_pre(t, piece + 1, ahead);
    }
    stage_piece(sum, piece, stripe);
    __syncwarp();
    for_each_chunk(t, piece, [&](int i, int64_t at, int place) {
      uint4 chunk = load_shared(stripe + place);
      if constexpr (F == Finish::gelu_slope) {
        const auto& at_pre = reinterpret_cast<const Pack<bf16, 8>&>(pre[i]);
        chunk = change_each(chunk, [&](int v, float value) { return value * fast_gelu_slope(widen(at_pre.v[v])); });
      }
      if (t.add) {
        const auto old = load<8>(t.c + at);
        chunk = change_each(chunk, [&](int v, float value) { return value + widen(old.v[v]); });
      }
      *reinterpret_cast<uint4*>(t.c + at) = chunk;
      if constexpr (F != Finish::plain) {
        const uint4& before = F == Finish::gelu ? chunk : pre[i];
        *reinterpret_cast<uint4*>(t.second + at) = change_each(before, [](int, float value) { return fast_gelu(value); });
      }
    });
  }
  __syncwarp();  // an odd number of pieces: the next tile begins in the stripe that was read last
}

/// Zeros in rows that no expert fills.
template <Finish F, int N>
__device__ __forceinline__ void clear_rows(const Target& t) {
  for (int piece = 0; piece < N / 64; ++piece)
    for_each_chunk(t, piece, [&](int, int64_t at, int) {
      *reinterpret_cast<uint4*>(t.c + at) = make_uint4(0, 0, 0, 0);
      if constexpr (F != Finish::plain) *reinterpret_cast<uint4*>(t.second + at) = make_uint4(0, 0, 0, 0);
    });
}

template <Product P, int N, Finish F, typename R>
__device__ __forceinline__ void consume(R& ring, const GroupedProduct<bf16>& p) {
  const int warp = threadIdx.x / 32 - 4, group = warp / 4;
  const int slices = static_cast<int>((a_pitch<P>(p.dims) + slice - 1) / slice);
  const int64_t pitch = columns_of<P>(p.dims);
  const uint32_t staging = ring.extra() + warp * 2 * stripe_bytes;
  float sum[N / 2];
  for (Walk<P> walk(p, N); walk.next(N);) {
    const int first = walk.first + warp * 16;
    const int64_t at = first * pitch + walk.column;
    const bool biased = p.bias != nullptr && walk.filled();
    const Target target{.c = static_cast<bf16*>(p.c) + at,
                        .second = p.second + at,
                        .bias = biased ? p.bias + walk.expert * p.dims.out + walk.column : nullptr,
                        .pitch = pitch,
                        .rows = walk.end - first,
                        .columns = static_cast<int>(pitch) - walk.column,
                        .add = p.mode == Accumulate::add};
    if (walk.filled()) {
      Chunks ahead;
      if constexpr (F == Finish::gelu_slope) fetch_pre(target, 0, ahead);
      constexpr bool biased_product = P == Product::forward;
      if constexpr (biased_product) start_from_bias(sum, target);
      multiply_slices<biased_product ? Start::kept : Start::cleared>(
          ring, group, slices, sum, [](int) {}, [](uint64_t, int) {});
      write_rows<F>(sum, staging, target, ahead);
    } else if (!target.add) {
      clear_rows<F, N>(target);
    }
  }
}

template <Product P, int N, Finish F>
__global__ void __launch_bounds__(threads, 1)
    grouped_wgmma_kernel(const GroupedProduct<bf16> p, const __grid_constant__ CUtensorMap a, const __grid_constant__ CUtensorMap b,
                         const __grid_constant__ CUtensorMap pre) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) unsigned char memory[];
  Ring<P, N, staging_bytes> ring(memory);
  ring.init();
  if (threadIdx.x < 128) {
    give_up_registers<40>();
    if (threadIdx.x == 0) produce<P, N, F>(ring, p, &a, &b, &pre);
  } else {
    take_registers<232>();
    consume<P, N, F>(ring, p);
  }
#else
  __trap();
#endif
}

template <Product P, Finish F, int N>
void launch(const Stream& stream, const GroupedProduct<bf16>& p) {
  constexpr auto kernel = grouped_wgmma_kernel<P, N, F>;
  constexpr int bytes = Ring<P, N, staging_bytes>::bytes;
  const GroupedLinearDims& d = p.dims;
  const CUtensorMap a = tensor_map({.data = p.a, .x = a_pitch<P>(d), .y = d.rows, .box_y = tile_m});
  const CUtensorMap b = tensor_map({.data = p.b, .x = d.in, .y = d.out, .z = d.experts, .box_y = P == Product::forward ? N : slice});
  CUtensorMap pre{};
  if constexpr (F == Finish::gelu_slope)
    pre = tensor_map({.data = static_cast<const bf16*>(p.c), .x = columns_of<P>(d), .y = d.rows, .box_y = tile_m});
  const int64_t blocks = std::min<int64_t>(state_of(stream).multiprocessors, most_tiles<P>(d, tile_m, N));
  cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "cudaFuncSetAttribute");
  kernel<<<static_cast<unsigned>(blocks), threads, bytes, native(stream)>>>(p, a, b, pre);
  cuda_check(cudaGetLastError(), "grouped_wgmma");
}

}  // namespace

template <Product P, Finish F>
void grouped_wgmma(const Stream& stream, const GroupedProduct<bf16>& p) {
  switch (hopper::columns_a_tile(columns_of<P>(p.dims))) {
    case 256: return launch<P, F, 256>(stream, p);
    case 192: return launch<P, F, 192>(stream, p);
    default: return launch<P, F, 128>(stream, p);
  }
}

template void grouped_wgmma<Product::forward, Finish::plain>(const Stream&, const GroupedProduct<bf16>&);
template void grouped_wgmma<Product::forward, Finish::gelu>(const Stream&, const GroupedProduct<bf16>&);
template void grouped_wgmma<Product::input, Finish::plain>(const Stream&, const GroupedProduct<bf16>&);
template void grouped_wgmma<Product::input, Finish::gelu_slope>(const Stream&, const GroupedProduct<bf16>&);

}  // namespace ermoe::cuda
