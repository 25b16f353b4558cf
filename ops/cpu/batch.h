// How a batch of equal matrix problems is spread over the cores.
#pragma once

#include <cstdint>

namespace ermoe::cpu {

/// Calls fn(i) for each of `batch` problems of `multiplications` each. Small ones run side by side, where BLAS uses one
/// thread each: on 2 cores that was never slower, and up to 4 times faster while other work shared them. Large ones run
/// in turn, where BLAS uses all threads, so that more cores than problems have work too. The choice depends on sizes
/// alone. `fn` must not throw.
template <typename Fn>
void for_each_matrix(int64_t batch, int64_t multiplications, Fn&& fn) {
  constexpr int64_t too_small = int64_t{1} << 16, large = int64_t{1} << 28;
#pragma omp parallel for if (batch > 1 && batch * multiplications > too_small && multiplications < large) schedule(dynamic)
  for (int64_t i = 0; i < batch; ++i) fn(i);
}

}  // namespace ermoe::cpu
