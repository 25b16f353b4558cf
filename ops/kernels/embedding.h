// Contract of the table look-up. Read next: ops/cpu/embedding.cpp.
#pragma once

#include "core/accumulate.h"
#include "core/bf16.h"
#include "core/device.h"

#include <cstddef>
#include <cstdint>

namespace ermoe {

struct EmbeddingDims {
  int64_t count = 0;            // ids
  int64_t rows = 0, width = 0;  // of the table
};

namespace cpu {

/// y[i] = table[ids[i]]; every id lies in [0, rows).
template <typename T>
void embedding_forward(const EmbeddingDims& dims, const T* table /* (rows, width) */, const int32_t* ids /* (count) */,
                       T* y /* (count, width) */);

/// dtable[v] (+)= Σ of dy[i] over the i with ids[i] = v, in the order of i.
template <typename T>
void embedding_backward(const EmbeddingDims& dims, const int32_t* ids, const T* dy, Master<T>* dtable, Accumulate mode);

}  // namespace cpu

namespace cuda {

/// An id outside the table gives a row of NaNs and takes no gradient.
template <typename T>
void embedding_forward(const Stream& stream, const EmbeddingDims& dims, const T* table, const int32_t* ids, T* y);
template <typename T>
void embedding_backward(const Stream& stream, const EmbeddingDims& dims, const int32_t* ids, const T* dy, Master<T>* dtable,
                        Accumulate mode, std::byte* scratch);

/// Bytes of scratch of the backward pass. Ids are fewer than 2^31.
int64_t embedding_scratch(const EmbeddingDims& dims);

}  // namespace cuda
}  // namespace ermoe
