// The last step of a loss: the mean of one value a row, in double and in order, so that threads cannot change it.
#pragma once

#include <cstdint>

namespace ermoe::cpu {

template <typename T>
T mean_of(int64_t n, const T* values) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(values[i]);
  return static_cast<T>(sum / static_cast<double>(n));
}

}  // namespace ermoe::cpu
