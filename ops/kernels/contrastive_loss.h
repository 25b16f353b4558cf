// Contract of the losses over pairs of an image and a text. A tile is some of this rank's features of one side, its rows, against the
// features of the other side of all ranks, its columns. Products are x = own · all; logits are e^s x, or e^s x + β.
// Read next: ops/contrastive_loss.h, ops/cpu/contrastive_loss.cpp.
#pragma once

#include "core/accumulate.h"
#include "core/bf16.h"
#include "core/device.h"

#include <algorithm>
#include <cstdint>

namespace ermoe {

struct PairDims {
  int64_t rows = 0, cols = 0, width = 0;
  int64_t first = 0;  // the column that row 0 belongs to; row i's own is first + i
  double weight = 0;  // of a row's loss in the rank's

  int64_t products() const { return rows * cols; }
};

/// Rows of a tile: at most 4 Mi products, 16 MiB of f32, which the L2 of a data centre's GPU holds until they are read again.
constexpr int64_t pair_tile_rows(int64_t cols) { return std::max<int64_t>(1, (int64_t{1} << 22) / std::max<int64_t>(1, cols)); }

/// What a tile's kernels read beside the products (rows, cols).
template <typename T>
struct PairTile {
  const T* products;
  const T* log_scale;       // (1)
  const T* bias = nullptr;  // (1), sigmoid alone
};

/// log Σ_j e^(logit) of a feature as two numbers: the largest product, and the log-sum-exp of the logits less the largest one. Late in
/// training that is near 100, and in one float the rest would have lost five of its digits; differences of products are exact where it
/// counts. Four numbers a pair, those of its image and those of its text.
constexpr int64_t shift_numbers = 2, pair_shift_numbers = 4;

/// Of a tile's rows and of its columns: the numbers of the first one; those of the next are `pair_shift_numbers` further.
template <typename T>
struct PairShifts {
  const T *own /* (rows) */, *all /* (cols) */;
};

/// What the way back writes for a tile. Those of parameters may be null: not wanted.
template <typename T>
struct PairSlopes {
  T* products;           // (rows, cols): dloss/dx
  Master<T>* log_scale;  // (rows): the row's part of dloss/ds
  Master<T>* bias;       // (rows): and of dloss/dβ
};

namespace cpu {

/// products (rows, cols) = own (rows, width) · all (cols, width)ᵀ.
template <typename T>
void pair_products(const PairDims& dims, const T* own, const T* all, Master<T>* products);
/// down (rows, width) (+)= slopes (rows, cols) · all (cols, width).
template <typename T>
void pair_features_backward(const PairDims& dims, const T* slopes, const T* all, T* down, Accumulate mode);

/// Writes the rows' shifts, which lie as in `PairShifts`. losses (rows) = weight · (log Σ_j e^(logit) - the logit of the row's own column).
template <typename T>
void contrastive_rows(const PairDims& dims, const PairTile<T>& tile, T* shifts, T* losses);
/// The slope of a product is weight · dloss · e^s · (softmax over its row + softmax over its column - 2 where they belong together): both
/// are losses of the same logit. The scale's part is that of the row's softmax alone, for columns are somebody's rows.
template <typename T>
void contrastive_slopes(const PairDims& dims, const PairTile<Master<T>>& tile, const PairShifts<Master<T>>& shifts, const Master<T>* dloss,
                        const PairSlopes<T>& out);

/// losses (rows) = weight · Σ_j -log σ(±logit), + for the row's own column.
template <typename T>
void sigmoid_pair_rows(const PairDims& dims, const PairTile<T>& tile, T* losses);
template <typename T>
void sigmoid_pair_slopes(const PairDims& dims, const PairTile<Master<T>>& tile, const Master<T>* dloss, const PairSlopes<T>& out);

/// *sum (+)= Σ values (n), in double; 0 where n is 0.
template <typename T>
void pair_sum(int64_t n, const T* values, T* sum, Accumulate mode);

}  // namespace cpu

namespace cuda {

template <typename T>
void pair_products(const Stream& stream, const PairDims& dims, const T* own, const T* all, Master<T>* products);
template <typename T>
void pair_features_backward(const Stream& stream, const PairDims& dims, const T* slopes, const T* all, T* down, Accumulate mode);

template <typename T>
void contrastive_rows(const Stream& stream, const PairDims& dims, const PairTile<T>& tile, T* shifts, T* losses);
template <typename T>
void contrastive_slopes(const Stream& stream, const PairDims& dims, const PairTile<Master<T>>& tile, const PairShifts<Master<T>>& shifts,
                        const Master<T>* dloss, const PairSlopes<T>& out);

template <typename T>
void sigmoid_pair_rows(const Stream& stream, const PairDims& dims, const PairTile<T>& tile, T* losses);
template <typename T>
void sigmoid_pair_slopes(const Stream& stream, const PairDims& dims, const PairTile<Master<T>>& tile, const Master<T>* dloss,
                         const PairSlopes<T>& out);

template <typename T>
void pair_sum(const Stream& stream, int64_t n, const T* values, T* sum, Accumulate mode);

}  // namespace cuda
}  // namespace ermoe
