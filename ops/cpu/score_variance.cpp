// The scores' variance on the CPU. Sums over rows are taken in double and in order, so threads cannot change them.
#include "ops/kernels/score_variance.h"

#include "ops/cpu/store.h"

#include <algorithm>
#include <vector>

namespace ermoe::cpu {

template <typename T>
void score_variance_forward(const ScoreVarianceDims& dims, const T* scores, const T* weights, double* means, T* loss) {
  const int64_t E = dims.experts;
  const auto n = static_cast<double>(dims.rows);
  std::fill_n(means, E, 0.0);
  for (int64_t i = 0; i < dims.rows; ++i)
    for (int64_t e = 0; e < E; ++e) means[e] += weight_of(weights, i) * static_cast<double>(scores[i * E + e]) / n;
  std::vector<double> variances(static_cast<size_t>(E));
  for (int64_t i = 0; i < dims.rows; ++i)
    for (int64_t e = 0; e < E; ++e) {
      const double apart = static_cast<double>(scores[i * E + e]) - means[e];
      variances[static_cast<size_t>(e)] += weight_of(weights, i) * apart * apart / n;
    }
  double sum = 0;
  for (const double variance : variances) sum += variance;
  *loss = static_cast<T>(-sum);
}

template <typename T>
void score_variance_backward(const ScoreVarianceDims& dims, const T* scores, const T* weights, const double* means, const T* dloss,
                             T* dscores, Accumulate mode) {
  const double scale = -2 * static_cast<double>(*dloss) / static_cast<double>(dims.rows);
#pragma omp parallel for schedule(static) if (dims.rows * dims.experts > 16384)
  for (int64_t n = 0; n < dims.rows; ++n) {
    const T* const s = scores + n * dims.experts;
    const double own = scale * weight_of(weights, n);
    store(dims.experts, dscores + n * dims.experts, mode,
          [=](int64_t e) { return static_cast<T>(own * (static_cast<double>(s[e]) - means[e])); });
  }
}

template void score_variance_forward(const ScoreVarianceDims&, const float*, const float*, double*, float*);
template void score_variance_forward(const ScoreVarianceDims&, const double*, const double*, double*, double*);
template void score_variance_backward(const ScoreVarianceDims&, const float*, const float*, const double*, const float*, float*,
                                      Accumulate);
template void score_variance_backward(const ScoreVarianceDims&, const double*, const double*, const double*, const double*, double*,
                                      Accumulate);

}  // namespace ermoe::cpu
