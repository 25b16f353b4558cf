// The grouped GEMM's products over rows, y = x W_eᵀ + b_e and dx = dy W_e, for Hopper. One block a multiprocessor walks the
// tiles; while its consumers write a tile, its producer already fetches the next one's slices. A tile's copies may read
// rows of the next expert: what they give lands in rows that are not written. How a tile leaves: grouped_linear_way_out.cuh.
#include "cuda/kernels/grouped_linear_way_out.cuh"
#include "cuda/runtime/check.h"
#include "cuda/runtime/tensor_map.h"

#include <algorithm>

namespace ermoe::cuda {
namespace {

using namespace hopper;

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

/// How C is written: by the threads, or by the copy engine, behind their back. The engine cannot add, and wants whole tiles staged.
enum class Out { stored, posted };

/// Pieces of 16 rows that a warp stages, and rows of a box of C.
template <Out W, Finish F, int N>
constexpr int stripes = W == Out::stored ? 2 : N / 64 * (F == Finish::plain ? 1 : 2);
template <Out W>
constexpr int rows_a_box = W == Out::stored ? tile_m : 16;

/// One thread fetches everything.
template <Product P, int N, Finish F, Out W, typename R>
__device__ __forceinline__ void produce(R& ring, const GroupedProduct<bf16>& p, const CUtensorMap* a, const CUtensorMap* b,
                                        const CUtensorMap* c) {
  const int slices = static_cast<int>((a_pitch<P>(p.dims) + slice - 1) / slice);
  prefetch_map(a);
  prefetch_map(b);
  for (Walk<P> walk(p, N); walk.next(N);) {
    if (!walk.filled()) continue;
    if constexpr (F == Finish::gelu_slope)
      for (int row = 0; row < tile_m; row += rows_a_box<W>)
        for (int j = 0; j < N / 64; ++j) prefetch_box(c, walk.column + 64 * j, walk.first + row);
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

template <Product P, int N, Finish F, Out W, typename R>
__device__ __forceinline__ void consume(R& ring, const GroupedProduct<bf16>& p, const CUtensorMap* c, const CUtensorMap* second) {
  const int warp = threadIdx.x / 32 - 4, group = warp / 4;
  const int slices = static_cast<int>((a_pitch<P>(p.dims) + slice - 1) / slice);
  const int64_t pitch = columns_of<P>(p.dims);
  const uint32_t staging = ring.extra() + warp * stripes<W, F, N> * stripe_bytes;
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
      if (W == Out::posted && target.rows >= 16) {
        post_rows<F>(sum, staging, target, Boxes{c, second, walk.column, first}, ahead);
      } else {
        if (W == Out::posted && threadIdx.x % 32 == 0) wait_posts_read();
        __syncwarp();
        write_rows<F>(sum, staging, target, ahead);
      }
    } else if (!target.add) {
      clear_rows<F, N>(target);
    }
  }
  if (W == Out::posted && threadIdx.x % 32 == 0) wait_posts();
}

template <Product P, int N, Finish F, Out W>
using Stages = Ring<P, N, consumer_warps * stripes<W, F, N> * stripe_bytes>;

template <Product P, int N, Finish F, Out W>
__global__ void __launch_bounds__(threads, 1)
    grouped_wgmma_kernel(const GroupedProduct<bf16> p, const __grid_constant__ CUtensorMap a, const __grid_constant__ CUtensorMap b,
                         const __grid_constant__ CUtensorMap c, const __grid_constant__ CUtensorMap second) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) unsigned char memory[];
  Stages<P, N, F, W> ring(memory);
  ring.init();
  if (threadIdx.x < 128) {
    give_up_registers<40>();
    if (threadIdx.x == 0) produce<P, N, F, W>(ring, p, &a, &b, &c);
  } else {
    take_registers<232>();
    consume<P, N, F, W>(ring, p, &c, &second);
  }
#else
  __trap();
#endif
}

template <Product P, Finish F, int N, Out W>
void launch(const Stream& stream, const GroupedProduct<bf16>& p) {
  constexpr auto kernel = grouped_wgmma_kernel<P, N, F, W>;
  constexpr int bytes = Stages<P, N, F, W>::bytes;
  const GroupedLinearDims& d = p.dims;
  const CUtensorMap a = tensor_map({.data = p.a, .x = a_pitch<P>(d), .y = d.rows, .box_y = tile_m});
  const CUtensorMap b = tensor_map({.data = p.b, .x = d.in, .y = d.out, .z = d.experts, .box_y = P == Product::forward ? N : slice});
  const auto written = [&](const void* data) {
    return tensor_map({.data = static_cast<const bf16*>(data), .x = columns_of<P>(d), .y = d.rows, .box_y = rows_a_box<W>});
  };
  CUtensorMap c{}, second{};
  if constexpr (F == Finish::gelu_slope || W == Out::posted) c = written(p.c);
  if constexpr (F != Finish::plain && W == Out::posted) second = written(p.second);
  const int64_t blocks = std::min<int64_t>(state_of(stream).multiprocessors, most_tiles<P>(d, tile_m, N));
  cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "cudaFuncSetAttribute");
  kernel<<<static_cast<unsigned>(blocks), threads, bytes, native(stream)>>>(p, a, b, c, second);
  cuda_check(cudaGetLastError(), "grouped_wgmma");
}

/// Posted tiles of 256 columns leave room for three stages, too few for a long k.
template <Product P, Finish F, Out W>
void choose_width(const Stream& stream, const GroupedProduct<bf16>& p) {
  constexpr int64_t long_k = 1536;
  const int64_t columns = columns_of<P>(p.dims);
  const int tile_n = columns_a_tile(columns);
  if (tile_n == 192 || (W == Out::posted && tile_n == 256 && a_pitch<P>(p.dims) > long_k && columns % 192 == 0))
    launch<P, F, 192, W>(stream, p);
  else if (tile_n == 256)
    launch<P, F, 256, W>(stream, p);
  else
    launch<P, F, 128, W>(stream, p);
}

}  // namespace

template <Product P, Finish F>
void grouped_wgmma(const Stream& stream, const GroupedProduct<bf16>& p) {
  constexpr int64_t short_k = F == Finish::gelu ? 768 : 384;  // up to it two tensors' way out is better hidden than tiles are wide
  if constexpr (F == Finish::plain) {
    if (p.mode == Accumulate::overwrite) return choose_width<P, F, Out::posted>(stream, p);
  } else {
    if (a_pitch<P>(p.dims) <= short_k) return launch<P, F, 128, Out::posted>(stream, p);
  }
  choose_width<P, F, Out::stored>(stream, p);
}

template void grouped_wgmma<Product::forward, Finish::plain>(const Stream&, const GroupedProduct<bf16>&);
template void grouped_wgmma<Product::forward, Finish::gelu>(const Stream&, const GroupedProduct<bf16>&);
template void grouped_wgmma<Product::input, Finish::plain>(const Stream&, const GroupedProduct<bf16>&);
template void grouped_wgmma<Product::input, Finish::gelu_slope>(const Stream&, const GroupedProduct<bf16>&);

}  // namespace ermoe::cuda
