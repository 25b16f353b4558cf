// The two large products of the orthogonal step with what follows them, on Hopper. Between them the stepped matrix is the sum
// of three bf16 matrices, hi + lo + rest, to the last bit of a float: the residual reads two of them, so that a third one is
// 2 bytes an element where q and the tangent were 6. Read next: cuda/kernels/stiefel_products_wgmma.cu.
#pragma once

#include "core/bf16.h"
#include "core/device.h"

#include <cstdint>

namespace ermoe::cuda {

/// Sizes of q, (batch, m, n), 8 | n. All pointers are aligned to 16 bytes.
struct ProductDims {
  int64_t batch = 0, m = 0, n = 0;
};

/// hi + lo + rest = q - lr (direction - twin sym).
struct StepProduct {
  ProductDims dims;
  float lr = 0;
  const float* q = nullptr;
  const bf16* twin = nullptr;  // q rounded; neither hi nor lo
  const bf16* sym = nullptr;   // (batch, n, n), symmetric
  bf16* direction = nullptr;   // becomes rest
  bf16 *hi = nullptr, *lo = nullptr;
};
void step_wgmma(const Stream& stream, const StepProduct& work);

/// q = stepped diag(own) + (hi half) diag(scale) for stepped = hi + lo + rest; stepped itself where `updates` is 0.
struct UpdateProduct {
  ProductDims dims;
  const bf16 *hi = nullptr, *lo = nullptr, *rest = nullptr;
  const bf16* half = nullptr;                    // (batch, n, n), symmetric
  const float *own = nullptr, *scale = nullptr;  // (batch, n)
  const unsigned* updates = nullptr;             // (batch)
  float* q = nullptr;
  bf16* twin = nullptr;  // q rounded, or null; none of the parts
};
void update_wgmma(const Stream& stream, const UpdateProduct& work);

}  // namespace ermoe::cuda
