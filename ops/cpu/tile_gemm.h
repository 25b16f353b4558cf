// A GEMM for small matrices inside one thread, for kernels that keep a tile of their work in cache (attention). BLAS pays
// for packing and set-up at these sizes; here the caller packs once and multiplies often. Registers hold 6 rows by two
// vectors of C. Read next: ops/cpu/attention.cpp.
#pragma once

#include "core/accumulate.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace ermoe::cpu {

/// Vector width of the micro-kernel; where the machine's own is smaller the compiler splits.
inline constexpr int64_t tile_bytes = 32;
template <typename T>
inline constexpr int64_t tile_lanes = tile_bytes / static_cast<int64_t>(sizeof(T));
template <typename T>
inline constexpr int64_t panel_columns = 2 * tile_lanes<T>;
inline constexpr int64_t tile_rows = 6;

/// Columns are computed in whole vectors: a C or B of n columns needs room for this many.
template <typename T>
constexpr int64_t padded(int64_t n) {
  return (n + tile_lanes<T> - 1) / tile_lanes<T> * tile_lanes<T>;
}
/// Elements of a (k, n) matrix packed in panels.
template <typename T>
constexpr int64_t panels_size(int64_t k, int64_t n) {
  return (n + panel_columns<T> - 1) / panel_columns<T> * panel_columns<T> * k;
}

/// A, with any strides: element (i, p) is data[i * row + p * column].
template <typename T>
struct LeftMatrix {
  const T* data;
  int64_t row, column;
};

/// C (rows, vectors * lanes) (+)= A B for one block that fits the registers.
template <typename T, int rows, int vectors>
void tile_block(int64_t k, const LeftMatrix<T>& a, const T* b, int64_t ldb, T* c, int64_t ldc, Accumulate mode) {
  using Vector [[gnu::vector_size(tile_bytes)]] = T;
  constexpr int64_t lanes = tile_lanes<T>;
  Vector sum[rows][vectors] = {};
  for (int64_t p = 0; p < k; ++p, b += ldb) {
    Vector right[vectors];
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) std::memcpy(&right[v], b + v * lanes, sizeof(Vector));
    const T* left = a.data + p * a.column;
#pragma GCC unroll 6
    for (int i = 0; i < rows; ++i, left += a.row) {
      const T factor = *left;
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v) sum[i][v] += factor * right[v];
    }
  }
#pragma GCC unroll 6
  for (int i = 0; i < rows; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) {
      T* const to = c + i * ldc + v * lanes;
      if (mode == Accumulate::add) {
        Vector old;
        std::memcpy(&old, to, sizeof(Vector));
        sum[i][v] += old;
      }
      std::memcpy(to, &sum[i][v], sizeof(Vector));
    }
}

template <typename T, int vectors>
void tile_column(int64_t m, int64_t k, LeftMatrix<T> a, const T* b, int64_t ldb, T* c, int64_t ldc, Accumulate mode) {
  for (; m >= tile_rows; m -= tile_rows, a.data += tile_rows * a.row, c += tile_rows * ldc)
    tile_block<T, tile_rows, vectors>(k, a, b, ldb, c, ldc, mode);
  switch (m) {
    case 5: return tile_block<T, 5, vectors>(k, a, b, ldb, c, ldc, mode);
    case 4: return tile_block<T, 4, vectors>(k, a, b, ldb, c, ldc, mode);
    case 3: return tile_block<T, 3, vectors>(k, a, b, ldb, c, ldc, mode);
    case 2: return tile_block<T, 2, vectors>(k, a, b, ldb, c, ldc, mode);
    case 1: return tile_block<T, 1, vectors>(k, a, b, ldb, c, ldc, mode);
    default: return;
  }
}

/// C (m, padded(n)) (+)= A (m, k) B (k, n), B in panels of which `packed_k` >= k rows were packed. Sums run over k in
/// order, so the result depends on nothing but the operands.
template <typename T>
void tile_gemm(int64_t m, int64_t n, int64_t k, const LeftMatrix<T>& a, const T* panels, int64_t packed_k, T* c, int64_t ldc,
               Accumulate mode) {
  constexpr int64_t columns = panel_columns<T>;
  for (int64_t j = 0; j < n; j += columns) {
    const T* const panel = panels + j * packed_k;
    if (n - j > tile_lanes<T>)
      tile_column<T, 2>(m, k, a, panel, columns, c + j, ldc, mode);
    else
      tile_column<T, 1>(m, k, a, panel, columns, c + j, ldc, mode);
  }
}

/// Packs B (k, n) with row length `ldb`, times `factor`; columns beyond n become zeros.
template <typename T>
void pack_panels(int64_t k, int64_t n, const T* b, int64_t ldb, T factor, T* panels) {
  constexpr int64_t columns = panel_columns<T>;
  for (int64_t j = 0; j < n; j += columns, panels += columns * k) {
    const int64_t filled = std::min(columns, n - j);
    for (int64_t p = 0; p < k; ++p) {
      const T* const from = b + p * ldb + j;
      T* const to = panels + p * columns;
      if (filled == columns) {  // a constant trip count: whole vectors
        for (int64_t i = 0; i < columns; ++i) to[i] = factor * from[i];
      } else {
        for (int64_t i = 0; i < columns; ++i) to[i] = i < filled ? factor * from[i] : T(0);
      }
    }
  }
}

/// Packs Bᵀ, where b (n, k) has row length `ldb`.
template <typename T>
void pack_panels_transposed(int64_t k, int64_t n, const T* b, int64_t ldb, T factor, T* panels) {
  constexpr int64_t columns = panel_columns<T>;
  for (int64_t j = 0; j < n; j += columns, panels += columns * k) {
    const T* const from = b + j * ldb;
    const int64_t filled = std::min(columns, n - j);
    for (int64_t p = 0; p < k; ++p) {
      T* const to = panels + p * columns;
      if (filled == columns) {
        for (int64_t i = 0; i < columns; ++i) to[i] = factor * from[i * ldb + p];
      } else {
        for (int64_t i = 0; i < columns; ++i) to[i] = i < filled ? factor * from[i * ldb + p] : T(0);
      }
    }
  }
}

}  // namespace ermoe::cpu
