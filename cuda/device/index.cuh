// Where a flat index lies in rows of a given length.
#pragma once

#include <cstdint>

namespace ermoe::cuda {

struct RowAndColumn {
  int64_t row, column;
};

/// Division of 64 bits costs several times one of 32, which is enough for all but the largest tensors.
__device__ __forceinline__ RowAndColumn divide(int64_t index, int64_t length) {
  if (((index | length) >> 32) != 0) return {index / length, index % length};
  const auto i = static_cast<uint32_t>(index), n = static_cast<uint32_t>(length), row = i / n;
  return {row, i - row * n};
}

}  // namespace ermoe::cuda
