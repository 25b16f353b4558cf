// What tests of steps on the Stiefel manifold share: every method, random factors, the tangent step by plain loops.
#pragma once

#include "ops/orthogonal_step.h"
#include "tests/gpu_bench.h"

#include <gtest/gtest.h>

#include <omp.h>

#include <algorithm>

namespace ermoe::testing {

inline constexpr StiefelMethod methods[] = {StiefelMethod::newton_schulz, StiefelMethod::gram_schmidt, StiefelMethod::cholesky_qr,
                                            StiefelMethod::cayley};
inline constexpr double promise = 5e-6;  // of max |QᵀQ - I| in float

inline std::string name_of_method(const ::testing::TestParamInfo<StiefelMethod>& method) {
  constexpr const char* names[] = {"newton_schulz", "gram_schmidt", "cholesky_qr", "cayley"};
  return names[static_cast<int>(method.param)];
}

inline Tensor gaussian(const ExecContext& ctx, Shape shape, DType dtype, uint64_t key) {
  return random_input(ctx, {shape}, dtype, RngKey{key});
}

/// Random orthonormal columns.
inline Tensor orthonormal(const ExecContext& ctx, Shape shape, DType dtype, uint64_t key) {
  const Tensor q = gaussian(ctx, shape, dtype, key);
  retract(ctx, q, StiefelMethod::gram_schmidt);
  return q;
}

/// op(a) b for row-major doubles: a (m, k) or, transposed, (k, m); b (k, n).
inline std::vector<double> product(const std::vector<double>& a, const std::vector<double>& b, int64_t m, int64_t k, int64_t n,
                                   bool transpose_a = false) {
  std::vector<double> c(static_cast<size_t>(m * n), 0.0);
  for (int64_t i = 0; i < m; ++i)
    for (int64_t l = 0; l < k; ++l)
      for (int64_t j = 0; j < n; ++j)
        c[static_cast<size_t>(i * n + j)] +=
            a[static_cast<size_t>(transpose_a ? l * m + i : i * k + l)] * b[static_cast<size_t>(l * n + j)];
  return c;
}

/// q - lr (a - q sym(qᵀa)), by loops.
inline std::vector<double> tangent_step(const std::vector<double>& q, const std::vector<double>& a, int64_t m, int64_t n, double lr) {
  const std::vector<double> s = product(q, a, n, m, n, true);
  std::vector<double> sym = s;
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < n; ++j)
      sym[static_cast<size_t>(i * n + j)] = (s[static_cast<size_t>(i * n + j)] + s[static_cast<size_t>(j * n + i)]) / 2;
  std::vector<double> stepped = product(q, sym, m, n, n);
  for (size_t i = 0; i < stepped.size(); ++i) stepped[i] = q[i] - lr * (a[i] - stepped[i]);
  return stepped;
}

inline double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(a[i] - b[i]));
  return largest;
}

/// Runs a test of many small products in one thread: several would only wait for one another.
class OneThread {
 public:
  OneThread() { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(before_); }

 private:
  int before_ = omp_get_max_threads();
};

/// A test of every method.
class OfEachMethod : public ::testing::TestWithParam<StiefelMethod> {
  OneThread one_thread_;
};

}  // namespace ermoe::testing
