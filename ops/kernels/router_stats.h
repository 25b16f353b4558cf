// Contract of the routing statistics' kernels. Read next: ops/cpu/router_stats.cpp.
#pragma once

#include "core/bf16.h"
#include "core/device.h"

#include <cstdint>

namespace ermoe {

/// Whether tokens count among x and c that no expert may take. `leave_out`: the first expert's column of the mask says which those are,
/// and the rows that counted are as many as its pairs.
enum class ClosedTokens { count, leave_out };

struct RouterStatsDims {
  static constexpr int64_t bins = 4096;  // of the score histogram, uniform on [-1, 1]
  int64_t N = 0, D = 0, E = 0, K = 0;
  ClosedTokens closed = ClosedTokens::count;

  // Layout of the sums: rows | Σx (D) | Σc (D) | Σs (E) | Σs² (E) | pairs (E) | histogram (bins)
  /// Where the number of rows behind Σx and Σc stands.
  ERMOE_HD int64_t rows() const { return closed == ClosedTokens::leave_out ? pairs() : 0; }
  ERMOE_HD int64_t sum_x() const { return 1; }
  ERMOE_HD int64_t sum_c() const { return 1 + D; }
  ERMOE_HD int64_t sum_s() const { return 1 + 2 * D; }
  ERMOE_HD int64_t sum_s2() const { return sum_s() + E; }
  ERMOE_HD int64_t pairs() const { return sum_s() + 2 * E; }
  ERMOE_HD int64_t histogram() const { return sum_s() + 3 * E; }
  ERMOE_HD int64_t size() const { return histogram() + bins; }
};

/// Running values of one router, by their first elements. All are zero before the first update.
template <typename T>
struct RunningStats {
  T* mean_x;      // (D)
  T* mean_c;      // (D)
  T* score_mean;  // (E)
  T* score_var;   // (E)
  T* histogram;   // (bins)
  T* updates;     // (1)
};

namespace cpu {

/// Adds a batch to `sums` (dims.size()). x, c (N, D), c may be null; scores (N, E); allow (N, E) u8 or null. The
/// histogram takes the K best allowed scores of each token. A NaN score is left out.
template <typename T>
void accumulate_router_stats(const RouterStatsDims& dims, const T* x, const T* c, const Master<T>* scores, const uint8_t* allow,
                             double* sums);

/// running = (1 - momentum) running + momentum batch; replaced by the batch where updates is 0. updates += 1.
template <typename T>
void update_router_stats(const RouterStatsDims& dims, const double* sums, double momentum, const RunningStats<T>& running);

/// order (N, E) = (scores - mean_e) / sqrt(var_e + 1e-6); the scores themselves where updates is 0.
template <typename T>
void calibrate_scores(const RouterStatsDims& dims, const T* scores, const RunningStats<T>& running, T* order);

/// value (1): a share q of the histogram (bins) lies below it. Minus infinity where the histogram is empty.
template <typename T>
void histogram_quantile(int64_t bins, const T* histogram, double q, T* value);

}  // namespace cpu

namespace cuda {

/// Bytes of scratch memory for `accumulate_router_stats`.
int64_t router_stats_scratch(const RouterStatsDims& dims);

/// Scores and running values are float on a GPU, whatever x and c are.
template <typename T>
void accumulate_router_stats(const Stream& stream, const RouterStatsDims& dims, const T* x, const T* c, const Master<T>* scores,
                             const uint8_t* allow, double* sums, void* scratch);
template <typename T>
void update_router_stats(const Stream& stream, const RouterStatsDims& dims, const double* sums, double momentum,
                         const RunningStats<T>& running);
template <typename T>
void calibrate_scores(const Stream& stream, const RouterStatsDims& dims, const T* scores, const RunningStats<T>& running, T* order);
template <typename T>
void histogram_quantile(const Stream& stream, int64_t bins, const T* histogram, double q, T* value);

}  // namespace cuda
}  // namespace ermoe
