// Counting loads and moving biases on the CPU: a number an expert.
#include "ops/kernels/balance_bias.h"

#include <numeric>

namespace ermoe::cpu {

template <typename T>
void add_counts(int64_t experts, const int32_t* counts, T* loads) {
  for (int64_t e = 0; e < experts; ++e) loads[e] += static_cast<T>(counts[e]);
}

template <typename T>
void move_biases(int64_t experts, const T* loads, double rate, T* bias) {
  const double total = std::accumulate(loads, loads + experts, 0.0);
  for (int64_t e = 0; e < experts; ++e) {
    const double below = total - static_cast<double>(experts) * static_cast<double>(loads[e]);
    if (below != 0) bias[e] += static_cast<T>(below > 0 ? rate : -rate);
  }
}

template void add_counts(int64_t, const int32_t*, float*);
template void add_counts(int64_t, const int32_t*, double*);
template void move_biases(int64_t, const float*, double, float*);
template void move_biases(int64_t, const double*, double, double*);

}  // namespace ermoe::cpu
