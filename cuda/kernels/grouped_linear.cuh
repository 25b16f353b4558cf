// What the grouped GEMM's kernels share: the three products as one form C = A B, and how a block finds its tile where the
// experts' numbers of rows are known on the device alone. Read next: grouped_linear.cu, which chooses among the kernels.
#pragma once

#include "cuda/device/pack.cuh"
#include "cuda/runtime/stream.h"
#include "ops/kernels/grouped_linear.h"

#include <type_traits>

namespace ermoe::cuda {

/// forward: y (rows, O) = x W_eᵀ + b_e. input: dx (rows, I) (+)= dy W_e. weight: dW_e (O, I) (+)= dyᵀ x over e's rows.
enum class Product { forward, input, weight };

/// What happens to a product of rows on its way out. gelu: C keeps the pre-activation, `second` receives its GELU.
/// gelu_slope: the product is multiplied by GELU's derivative at what C held, the pre-activation, and `second` receives its GELU.
enum class Finish { plain, gelu, gelu_slope };

/// A (M, K) has K contiguous but for `weight`, where a row of memory is one k; B (N, K) has it in `forward` alone.
template <Product P>
constexpr bool a_has_contiguous_k = P != Product::weight;
template <Product P>
constexpr bool b_has_contiguous_k = P == Product::forward;

/// What C holds; `weight` may be asked for T as well.
template <Product P, typename T>
using Usual = std::conditional_t<P == Product::weight, Master<T>, T>;

template <typename T>
struct GroupedProduct {
  GroupedLinearDims dims;
  const T* a = nullptr;  // x, dy, dy
  const T* b = nullptr;  // w, w, x
  const T* bias = nullptr;
  const int32_t* offsets = nullptr;  // (E+1); null: one expert has all rows
  void* c = nullptr;                 // of the kernel's `Out`
  Accumulate mode = Accumulate::overwrite;
  T* second = nullptr;             // laid out as C
  Destination<float> bias_sums{};  // of `weight`: db (E, O), where it is wanted
};

/// Where the rows of expert e begin and end.
__device__ __forceinline__ int rows_begin(const int32_t* offsets, int e) { return offsets != nullptr ? offsets[e] : 0; }
__device__ __forceinline__ int rows_end(const int32_t* offsets, int e, int rows) { return offsets != nullptr ? offsets[e + 1] : rows; }

/// Columns of C, and what separates neighbouring rows of A, B and C in memory.
template <Product P>
__host__ __device__ constexpr int64_t columns_of(const GroupedLinearDims& d) {
  return P == Product::forward ? d.out : d.in;
}
template <Product P>
__host__ __device__ constexpr int64_t a_pitch(const GroupedLinearDims& d) {
  return P == Product::forward ? d.in : d.out;
}

/// Where a tile's operands begin, and how much of them there is from there on.
template <typename T>
struct GroupedTile {
  const T* a = nullptr;     // the tile's first row of A (column, where k is not contiguous), k = 0
  const T* b = nullptr;     // the same of B
  const T* bias = nullptr;  // of the tile's first column
  int64_t c = 0;            // index of the tile's first element in C
  int m = 0, n = 0, k = 0;  // what is left; m = 0: no such tile
};

/// Rows of one expert, `rows_a_tile` at most.
struct RowTile {
  int expert = 0;  // E: rows that no expert fills
  int first = 0, end = 0;
};

/// Tiles of rows that a grid must offer: every expert may end inside a tile, and so may the rows behind them.
inline int64_t most_row_tiles(const GroupedLinearDims& d, int64_t rows_a_tile) { return d.rows / rows_a_tile + d.experts + 1; }

/// The `index`-th tile in the order of rows; first == end where there are fewer.
__device__ __forceinline__ RowTile find_row_tile(const int32_t* offsets, int experts, int rows, int index, int rows_a_tile) {
  int begin = 0;
  for (int e = 0; e <= experts; ++e) {
    const int end = e < experts ? rows_end(offsets, e, rows) : rows, tiles = (end - begin + rows_a_tile - 1) / rows_a_tile;
    if (index < tiles) {
      const int first = begin + index * rows_a_tile;
      return {e, first, min(first + rows_a_tile, end)};
    }
    index -= tiles;
    begin = end;
  }
  return {experts, rows, rows};
}

/// The tile of block `index`: neighbours share their rows of A, and the expert's weights stay in the L2.
template <Product P, typename T>
__device__ __forceinline__ GroupedTile<T> find_tile(const GroupedProduct<T>& p, int index, int tile_m, int tile_n) {
  const GroupedLinearDims& d = p.dims;
  const int experts = static_cast<int>(d.experts), across = static_cast<int>((columns_of<P>(d) + tile_n - 1) / tile_n);
  const int64_t column = static_cast<int64_t>(index % across) * tile_n;
  GroupedTile<T> t;
  t.n = static_cast<int>(min(columns_of<P>(d) - column, static_cast<int64_t>(tile_n)));
  if constexpr (P == Product::weight) {
    const int down = static_cast<int>((d.out + tile_m - 1) / tile_m), e = index / across / down;
    const int64_t row = static_cast<int64_t>(index / across % down) * tile_m;
    const int first = rows_begin(p.offsets, e);
    t.m = static_cast<int>(min(d.out - row, static_cast<int64_t>(tile_m)));
    t.k = rows_end(p.offsets, e, static_cast<int>(d.rows)) - first;
    t.a = p.a + first * d.out + row;
    t.b = p.b + first * d.in + column;
    t.c = (e * d.out + row) * d.in + column;
  } else {
    const RowTile rows = find_row_tile(p.offsets, experts, static_cast<int>(d.rows), index / across, tile_m);
    const bool filled = rows.expert < experts;
    const int64_t expert = filled ? rows.expert : 0;
    t.m = filled || p.mode == Accumulate::overwrite ? rows.end - rows.first : 0;
    t.k = filled ? static_cast<int>(a_pitch<P>(d)) : 0;  // no product: zeros
    t.a = p.a + rows.first * a_pitch<P>(d);
    t.b = p.b + expert * d.out * d.in + column * (b_has_contiguous_k<P> ? d.in : 1);
    t.bias = p.bias != nullptr && filled ? p.bias + expert * d.out + column : nullptr;
    t.c = rows.first * columns_of<P>(d) + column;
  }
  return t;
}

/// Blocks that cover every tile.
template <Product P>
int64_t most_tiles(const GroupedLinearDims& d, int64_t tile_m, int64_t tile_n) {
  const int64_t across = (columns_of<P>(d) + tile_n - 1) / tile_n;
  return across * (P == Product::weight ? d.experts * ((d.out + tile_m - 1) / tile_m) : most_row_tiles(d, tile_m));
}

/// Two neighbours of a row of C, by one store where `pairs` says that they are aligned.
template <typename Out>
__device__ __forceinline__ void write_pair(Out* to, float first, float second, int left, bool add, bool pairs) {
  if (pairs && left >= 2) {
    Pack<Out, 2> out;
    if (add) {
      out = load<2>(to);
      first += widen(out.v[0]);
      second += widen(out.v[1]);
    }
    out.v[0] = narrow<Out>(first);
    out.v[1] = narrow<Out>(second);
    store(to, out);
  } else {
    if (left >= 1) to[0] = narrow<Out>(add ? widen(to[0]) + first : first);
    if (left >= 2) to[1] = narrow<Out>(add ? widen(to[1]) + second : second);
  }
}

/// Tensor cores read A and B by 16 bytes.
template <Product P>
bool rows_are_aligned(const GroupedProduct<bf16>& p) {
  return all_aligned(p.a, p.b) && p.dims.in % 8 == 0 && (P == Product::forward || p.dims.out % 8 == 0);
}

/// Whether Hopper's kernels below take it. Later generations do not run their instructions.
template <Product P>
bool suits_wgmma(const Stream& stream, const GroupedProduct<bf16>& p) {
  const GroupedLinearDims& d = p.dims;
  return state_of(stream).major == 9 && rows_are_aligned<P>(p) && d.rows > 0 && d.experts > 0 && d.in > 0 && d.out > 0 && d.out % 8 == 0 &&
         (P == Product::weight || all_aligned(p.c, p.second)) && reinterpret_cast<uintptr_t>(p.bias) % 4 == 0;
}

/// Fused multiply-adds for float32, and for bf16 whose rows are not aligned to 16 bytes.
template <Product P, typename T, typename Out>
void grouped_simt(const Stream& stream, const GroupedProduct<T>& product);

/// Tensor cores by `mma.sync`, sm_80 and newer. Wants rows of A and B aligned to 16 bytes.
template <Product P, typename Out>
void grouped_mma(const Stream& stream, const GroupedProduct<bf16>& product);

/// Hopper's wgmma, fed by bulk copies: forward and input. Wants what `grouped_mma` wants, rows of C and of `second` aligned to
/// 16 bytes too, the bias to 4, and none of the sizes zero.
template <Product P, Finish F>
void grouped_wgmma(const Stream& stream, const GroupedProduct<bf16>& product);

/// `grouped_wgmma` where it suits; else false, and nothing is done.
template <Product P, Finish F, typename T>
bool multiply_on_hopper(const Stream& stream, const GroupedProduct<T>& p) {
  if constexpr (sizeof(T) == sizeof(bf16)) {
    if (!suits_wgmma<P>(stream, p)) return false;
    grouped_wgmma<P, F>(stream, p);
    return true;
  }
  return false;
}

/// As `grouped_wgmma`, of `weight` and the bias gradient, with scratch memory of as many floats. Out: float, or bf16 where C is
/// overwritten and aligned to 8 bytes.
template <typename Out>
void grouped_wgmma_weight(const Stream& stream, const GroupedProduct<bf16>& product, float* scratch);
int64_t grouped_wgmma_weight_scratch(const Stream& stream, const GroupedLinearDims& dims);

}  // namespace ermoe::cuda
