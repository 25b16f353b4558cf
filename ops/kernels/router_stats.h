// Contract of the routing statistics' kernels. Read next: ops/cpu/router_stats.cpp.
#pragma once

#include "core/device.h"

#include <cstdint>

namespace ermoe {

struct RouterStatsDims {
  static constexpr int64_t bins = 4096;  // of the score histogram, uniform on [-1, 1]
  int64_t N = 0, D = 0, E = 0, K = 0;

  // Layout of the sums: rows | Σx (D) | Σc (D) | Σs (E) | Σs² (E) | pairs (E) | histogram (bins)
  int64_t sum_x() const { return 1; }
  int64_t sum_c() const { return 1 + D; }
  int64_t sum_s() const { return 1 + 2 * D; }
  int64_t sum_s2() const { return sum_s() + E; }
  int64_t pairs() const { return sum_s() + 2 * E; }
  int64_t histogram() const { return sum_s() + 3 * E; }
  int64_t size() const { return histogram() + bins; }
};

namespace cpu {

/// Adds a batch to `sums` (dims.size()). x, c (N, D), c may be null; scores (N, E); allow (N, E) u8 or null. The
/// histogram takes the K best allowed scores of each token. A NaN score is left out.
template <typename T>
void accumulate_router_stats(const RouterStatsDims& dims, const T* x, const T* c, const T* scores, const uint8_t* allow, double* sums);

/// order (N, E) = (scores - mean_e) / sqrt(var_e + 1e-6).
template <typename T>
void calibrate_scores(const RouterStatsDims& dims, const T* scores, const T* mean, const T* var, T* order);

}  // namespace cpu

namespace cuda {

template <typename T>
void accumulate_router_stats(const Stream& stream, const RouterStatsDims& dims, const T* x, const T* c, const T* scores,
                             const uint8_t* allow, double* sums);
template <typename T>
void calibrate_scores(const Stream& stream, const RouterStatsDims& dims, const T* scores, const T* mean, const T* var, T* order);

}  // namespace cuda
}  // namespace ermoe
