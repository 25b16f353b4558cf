// Contract of the gather kernels. Read next: ops/cpu/gather_slots.cpp.
#pragma once

#include "core/accumulate.h"
#include "core/device.h"

#include <cstdint>

namespace ermoe {

struct GatherSlotsDims {
  int64_t tokens = 0;   // N
  int64_t experts = 0;  // E
  int64_t slots = 0;    // K
};

namespace cpu {

/// w_nk = p_n,id(n,k); 0 where the id is outside [0, E).
template <typename T>
void gather_slots_forward(const GatherSlotsDims& dims, const T* p /* (N,E) */, const int32_t* ids /* (N,K) */, T* w /* (N,K) */);

/// dp_n (+)= dw_nk at id(n,k), 0 elsewhere.
template <typename T>
void gather_slots_backward(const GatherSlotsDims& dims, const int32_t* ids, const T* dw, T* dp, Accumulate mode);

}  // namespace cpu

namespace cuda {

/// Probabilities and weights are float on a GPU, whatever the rest of the model computes in.
template <typename T>
void gather_slots_forward(const Stream& stream, const GatherSlotsDims& dims, const T* p, const int32_t* ids, T* w);
template <typename T>
void gather_slots_backward(const Stream& stream, const GatherSlotsDims& dims, const int32_t* ids, const T* dw, T* dp, Accumulate mode);

}  // namespace cuda
}  // namespace ermoe
