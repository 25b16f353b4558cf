// What the two attention kernels share: how queries are cut into blocks, and a thread's private scratch.
// Read next: ops/cpu/tile_gemm.h.
#pragma once

#include "ops/cpu/tile_gemm.h"
#include "ops/kernels/attention.h"

#include <algorithm>
#include <cstdint>

namespace ermoe::cpu {

/// The queries that share one tile of scores: a multiple of the micro-kernel's rows. Causal blocks are short, because a
/// block computes the whole rectangle up to its last query.
inline int64_t query_block(const AttentionDims& dims) {
  const int64_t elements = 32768;  // with K and V beside it, a tile stays in a second-level cache
  const int64_t longest = dims.mask == AttentionMask::causal ? 24 : 96;
  return std::clamp(elements / std::max<int64_t>(dims.tokens, 1) / tile_rows * tile_rows, 2 * tile_rows, longest);
}

/// Takes pieces of a thread's scratch, each on a cache line of its own.
template <typename T>
class Pieces {
 public:
  /// With a null `begin` it only counts.
  explicit Pieces(T* begin) : begin_(begin) {}
  T* take(int64_t count) {
    T* const piece = begin_ == nullptr ? nullptr : begin_ + used_;
    used_ += (count + 15) / 16 * 16;
    return piece;
  }
  int64_t used() const { return used_; }

 private:
  T* begin_;
  int64_t used_ = 0;
};

/// Room for n columns whatever the element type: what the micro-kernel may write.
inline int64_t row_length(int64_t n) { return (n + 15) / 16 * 16; }

template <typename Tile>
int64_t scratch_per_thread(const AttentionDims& dims) {
  Pieces<float> pieces(nullptr);
  Tile tile(dims, pieces);
  return pieces.used();
}

/// Keys that query q sees.
inline int64_t visible(const AttentionDims& d, int64_t q) { return d.mask == AttentionMask::causal ? q + 1 : d.tokens; }

/// (+)= a column slice of a (rows, stride) matrix from a private buffer.
template <typename T>
void write_rows(int64_t rows, int64_t columns, const T* from, int64_t from_length, T* to, int64_t to_length, Accumulate mode) {
  for (int64_t i = 0; i < rows; ++i, from += from_length, to += to_length) {
    if (mode == Accumulate::overwrite)
      std::copy(from, from + columns, to);
    else
      for (int64_t c = 0; c < columns; ++c) to[c] += from[c];
  }
}

}  // namespace ermoe::cpu
