#include "models/svd.h"

#include "ops/cpu/lapack.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace ermoe {
namespace {

/// G (m, n) row-major is destroyed; U (m, k), s (k), Vt (k, n), k = min(m, n). Double: the start must be exact.
void svd(int64_t m, int64_t n, std::vector<double>& G, std::vector<double>& U, std::vector<double>& s, std::vector<double>& Vt) {
  const auto k = std::min(m, n);
  U.resize(static_cast<size_t>(m * k));
  s.resize(static_cast<size_t>(k));
  Vt.resize(static_cast<size_t>(k * n));
  check(cpu::singular_vectors(m, n, G.data(), U.data(), s.data(), Vt.data()), "[svd] no convergence on a {}x{} matrix", m, n);
}

void draw(std::vector<double>& G, int64_t size, double deviation, RngKey key) {
  G.resize(static_cast<size_t>(size));
  for (int64_t i = 0; i < size; ++i) G[static_cast<size_t>(i)] = deviation * normal(key, static_cast<uint64_t>(i));
}

void init_expert(const FactorDraw& factors, int64_t e) {
  const int64_t m = factors.U.shape()[1], r = factors.U.shape()[2], n = factors.V.shape()[1], k = std::min(m, n);
  std::vector<double> G, u, sigma, vt;
  draw(G, m * n, factors.deviation, factors.key.fold(static_cast<uint64_t>(e)));
  svd(m, n, G, u, sigma, vt);
  dispatch_float(factors.U.dtype(), "init_factors", [&](auto tag) {
    using T = decltype(tag);
    T *U = factors.U.data<T>() + e * m * r, *s = factors.s.data<T>() + e * r, *V = factors.V.data<T>() + e * n * r;
    for (int64_t i = 0; i < r; ++i) {
      s[i] = static_cast<T>(sigma[static_cast<size_t>(i)]);
      for (int64_t row = 0; row < m; ++row) U[row * r + i] = static_cast<T>(u[static_cast<size_t>(row * k + i)]);
      for (int64_t row = 0; row < n; ++row) V[row * r + i] = static_cast<T>(vt[static_cast<size_t>(i * n + row)]);
    }
  });
}

}  // namespace

void init_factors(const ExecContext&, std::span<const FactorDraw> draws) {
  const int64_t E = draws[0].U.shape()[0], count = std::ssize(draws) * E;
#pragma omp parallel for schedule(dynamic)
  for (int64_t i = 0; i < count; ++i) init_expert(draws[static_cast<size_t>(i / E)], i % E);
}

std::optional<SingularTriplets> singular_triplets(const Tensor& W) {
  SingularTriplets result{.m = W.shape()[0], .n = W.shape()[1], .U = {}, .s = {}, .Vt = {}};
  const auto k = std::min(result.m, result.n);
  result.U.resize(static_cast<size_t>(result.m * k));
  result.s.resize(static_cast<size_t>(k));
  result.Vt.resize(static_cast<size_t>(k * result.n));
  std::vector<double> G;
  dispatch_float(W.dtype(), "singular_triplets", [&](auto tag) {
    const auto* w = W.data<decltype(tag)>();
    G.assign(w, w + W.numel());
  });
  const auto finite = [](double v) { return std::isfinite(v); };
  if (!std::ranges::all_of(G, finite)) return std::nullopt;
  if (!cpu::singular_vectors(result.m, result.n, G.data(), result.U.data(), result.s.data(), result.Vt.data())) return std::nullopt;
  return result;
}

std::vector<std::vector<double>> singular_values(const Tensor& W) {
  const int64_t E = W.shape()[0], m = W.shape()[1], n = W.shape()[2];
  std::vector<std::vector<double>> all(static_cast<size_t>(E));
  dispatch_float(W.dtype(), "singular_values", [&](auto tag) {
    const auto* w = W.data<decltype(tag)>();
#pragma omp parallel for schedule(dynamic)
    for (int64_t e = 0; e < E; ++e) {
      std::vector<double> G(w + e * m * n, w + (e + 1) * m * n), u, vt;
      svd(m, n, G, u, all[static_cast<size_t>(e)], vt);
    }
  });
  return all;
}

void init_orthonormal(const ExecContext&, const Tensor& Q, RngKey key) {
  const int64_t m = Q.shape()[-2], n = Q.shape()[-1], count = Q.numel() == 0 ? 0 : Q.numel() / (m * n);
  dispatch_float(Q.dtype(), "init_orthonormal", [&](auto tag) {
    using T = decltype(tag);
    for (int64_t b = 0; b < count; ++b) {
      std::vector<double> G, u, sigma, vt;
      draw(G, m * n, 1.0, key.fold(static_cast<uint64_t>(b)));
      svd(m, n, G, u, sigma, vt);  // the left singular vectors of a Gaussian matrix are uniformly distributed
      for (int64_t i = 0; i < m * n; ++i) Q.data<T>()[b * m * n + i] = static_cast<T>(u[static_cast<size_t>(i)]);
    }
  });
}

}  // namespace ermoe
