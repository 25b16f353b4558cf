// Noise on the CPU. Numbers are keyed, so no order of threads shows.
#include "ops/kernels/add_noise.h"

namespace ermoe::cpu {

template <typename T>
void add_noise(const AddNoiseDims& dims, DrawKey drawn, const T* x, T* y) {
  const RngKey key = drawn.resolve();
#pragma omp parallel for if (dims.numel > 4096) schedule(static)
  for (int64_t i = 0; i < dims.numel; ++i)
    y[i] = x[i] + static_cast<T>(dims.deviation * normal(key, static_cast<uint64_t>(dims.first + i)));
}

template void add_noise(const AddNoiseDims&, DrawKey, const float*, float*);
template void add_noise(const AddNoiseDims&, DrawKey, const double*, double*);

}  // namespace ermoe::cpu
