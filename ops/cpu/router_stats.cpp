// Sums over tokens in double, by fixed chunks of rows that are added in order: the same bits for any number of threads.
#include "ops/kernels/router_stats.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace ermoe::cpu {
namespace {

constexpr int64_t chunk_rows = 256;

template <typename T>
void add_rows(const RouterStatsDims& dims, int64_t first, int64_t rows, const T* from, const uint8_t* allow, double* to) {
  const int64_t width = dims.D;
  const bool all = allow == nullptr || dims.closed == ClosedTokens::count;
  for (int64_t n = first; n < first + rows; ++n)
    for (int64_t d = 0; d < width && (all || allow[n * dims.E] != 0); ++d) to[d] += static_cast<double>(from[n * width + d]);
}

/// Scores of one token: moments of every expert, and the K best into the histogram.
template <typename T>
void add_scores(const RouterStatsDims& dims, const T* s, const uint8_t* allow, std::vector<double>& best, double* sums) {
  best.clear();
  for (int64_t e = 0; e < dims.E; ++e) {
    if ((allow != nullptr && allow[e] == 0) || std::isnan(s[e])) continue;
    const auto value = static_cast<double>(s[e]);
    sums[dims.sum_s() + e] += value;
    sums[dims.sum_s2() + e] += value * value;
    sums[dims.pairs() + e] += 1;
    best.push_back(value);
  }
  const auto keep = std::min(best.size(), static_cast<size_t>(dims.K));
  std::partial_sort(best.begin(), best.begin() + static_cast<std::ptrdiff_t>(keep), best.end(), std::greater<>());
  for (size_t k = 0; k < keep; ++k) {
    const double bin = (best[k] + 1) * 0.5 * static_cast<double>(RouterStatsDims::bins);
    sums[dims.histogram() + static_cast<int64_t>(std::clamp(bin, 0.0, static_cast<double>(RouterStatsDims::bins - 1)))] += 1;
  }
}

/// running moves towards sums / count by `rate`.
template <typename T>
void blend(T* running, const double* sums, double count, int64_t size, double rate) {
  for (int64_t i = 0; i < size; ++i) running[i] = static_cast<T>((1 - rate) * static_cast<double>(running[i]) + rate * sums[i] / count);
}

}  // namespace

template <typename T>
void accumulate_router_stats(const RouterStatsDims& dims, const T* x, const T* c, const Master<T>* scores, const uint8_t* allow,
                             double* sums) {
  const int64_t chunks = (dims.N + chunk_rows - 1) / chunk_rows, size = dims.size();
  std::vector<double> partial(static_cast<size_t>(chunks * size));
#pragma omp parallel for if (chunks > 1) schedule(static)
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    double* own = partial.data() + chunk * size;
    const int64_t first = chunk * chunk_rows, rows = std::min(chunk_rows, dims.N - first);
    own[0] += static_cast<double>(rows);
    add_rows(dims, first, rows, x, allow, own + dims.sum_x());
    if (c != nullptr) add_rows(dims, first, rows, c, allow, own + dims.sum_c());
    std::vector<double> best;
    for (int64_t n = first; n < first + rows; ++n)
      add_scores(dims, scores + n * dims.E, allow == nullptr ? nullptr : allow + n * dims.E, best, own);
  }
  for (int64_t chunk = 0; chunk < chunks; ++chunk)
    for (int64_t i = 0; i < size; ++i) sums[i] += partial[static_cast<size_t>(chunk * size + i)];
}

template <typename T>
void update_router_stats(const RouterStatsDims& dims, const double* sums, double momentum, const RunningStats<T>& running) {
  const double rate = *running.updates == 0 ? 1.0 : momentum;
  if (const double rows = sums[dims.rows()]; rows > 0) {
    blend(running.mean_x, sums + dims.sum_x(), rows, dims.D, rate);
    blend(running.mean_c, sums + dims.sum_c(), rows, dims.D, rate);
  }
  for (int64_t e = 0; e < dims.E; ++e) {
    const double pairs = sums[dims.pairs() + e];
    if (pairs == 0) continue;
    const double mean = sums[dims.sum_s() + e] / pairs;
    const double var = std::max(0.0, sums[dims.sum_s2() + e] / pairs - mean * mean);
    blend(running.score_mean + e, &mean, 1, 1, rate);
    blend(running.score_var + e, &var, 1, 1, rate);
  }
  const double* histogram = sums + dims.histogram();
  double total = 0;
  for (int64_t b = 0; b < RouterStatsDims::bins; ++b) total += histogram[b];
  if (total > 0) blend(running.histogram, histogram, total, RouterStatsDims::bins, rate);
  *running.updates += 1;
}

template <typename T>
void calibrate_scores(const RouterStatsDims& dims, const T* scores, const RunningStats<T>& running, T* order) {
  if (*running.updates == 0) {
    std::copy_n(scores, dims.N * dims.E, order);
    return;
  }
  std::vector<T> inverse(static_cast<size_t>(dims.E));
  for (int64_t e = 0; e < dims.E; ++e) inverse[static_cast<size_t>(e)] = 1 / std::sqrt(running.score_var[e] + static_cast<T>(1e-6));
  for (int64_t n = 0; n < dims.N; ++n)
    for (int64_t e = 0; e < dims.E; ++e)
      order[n * dims.E + e] = (scores[n * dims.E + e] - running.score_mean[e]) * inverse[static_cast<size_t>(e)];
}

template <typename T>
void histogram_quantile(int64_t bins, const T* histogram, double q, T* value) {
  double total = 0, below = 0;
  for (int64_t b = 0; b < bins; ++b) total += static_cast<double>(histogram[b]);
  *value = total > 0 ? T(1) : -std::numeric_limits<T>::infinity();
  for (int64_t b = 0; b < bins; ++b) {
    const auto here = static_cast<double>(histogram[b]);
    if (here > 0 && below + here >= q * total) {
      *value = static_cast<T>(-1 + 2 * (static_cast<double>(b) + (q * total - below) / here) / static_cast<double>(bins));
      return;
    }
    below += here;
  }
}

template void accumulate_router_stats(const RouterStatsDims&, const float*, const float*, const float*, const uint8_t*, double*);
template void accumulate_router_stats(const RouterStatsDims&, const double*, const double*, const double*, const uint8_t*, double*);
template void update_router_stats(const RouterStatsDims&, const double*, double, const RunningStats<float>&);
template void update_router_stats(const RouterStatsDims&, const double*, double, const RunningStats<double>&);
template void calibrate_scores(const RouterStatsDims&, const float*, const RunningStats<float>&, float*);
template void calibrate_scores(const RouterStatsDims&, const double*, const RunningStats<double>&, double*);
template void histogram_quantile(int64_t, const float*, double, float*);
template void histogram_quantile(int64_t, const double*, double, double*);

}  // namespace ermoe::cpu
