// Gathering on the CPU: tokens are independent.
#include "ops/kernels/gather_slots.h"

#include <algorithm>

namespace ermoe::cpu {

template <typename T>
void gather_slots_forward(const GatherSlotsDims& dims, const T* p, const int32_t* ids, T* w) {
#pragma omp parallel for if (dims.tokens * dims.slots > 32768) schedule(static)
  for (int64_t n = 0; n < dims.tokens; ++n)
    for (int64_t slot = n * dims.slots; slot < (n + 1) * dims.slots; ++slot)
      w[slot] = ids[slot] >= 0 && ids[slot] < dims.experts ? p[n * dims.experts + ids[slot]] : T(0);
}

template <typename T>
void gather_slots_backward(const GatherSlotsDims& dims, const int32_t* ids, const T* dw, T* dp, Accumulate mode) {
#pragma omp parallel for if (dims.tokens * dims.slots > 32768) schedule(static)
  for (int64_t n = 0; n < dims.tokens; ++n) {
    T* to = dp + n * dims.experts;
    if (mode == Accumulate::overwrite) std::fill_n(to, dims.experts, T(0));
    for (int64_t slot = n * dims.slots; slot < (n + 1) * dims.slots; ++slot)
      if (ids[slot] >= 0 && ids[slot] < dims.experts) to[ids[slot]] += dw[slot];
  }
}

template void gather_slots_forward(const GatherSlotsDims&, const float*, const int32_t*, float*);
template void gather_slots_forward(const GatherSlotsDims&, const double*, const int32_t*, double*);
template void gather_slots_backward(const GatherSlotsDims&, const int32_t*, const float*, float*, Accumulate);
template void gather_slots_backward(const GatherSlotsDims&, const int32_t*, const double*, double*, Accumulate);

}  // namespace ermoe::cpu
