#include "ops/router_stats.h"

#include <algorithm>
#include <cstring>

namespace ermoe {
namespace {

RouterStatsDims dims_of(const Tensor& x, const Tensor& scores, int64_t K) {
  RouterStatsDims dims{.N = scores.shape()[0], .D = x.shape()[1], .E = scores.shape()[1], .K = K};
  check(x.shape()[0] == dims.N, "[router_stats] x {} but scores {}", x.shape().str(), scores.shape().str());
  return dims;
}

/// running moves towards sums / count by `rate`.
template <typename T>
void blend(T* running, const double* sums, double count, int64_t size, double rate) {
  for (int64_t i = 0; i < size; ++i) running[i] = static_cast<T>((1 - rate) * static_cast<double>(running[i]) + rate * sums[i] / count);
}

template <typename T>
void update(const RouterStatsDims& dims, const double* sums, double momentum, RouterStats& stats) {
  T* updates = stats.updates.data<T>();
  const double rate = *updates == 0 ? 1.0 : momentum;
  if (sums[0] > 0) {
    blend(stats.mean_x.data<T>(), sums + dims.sum_x(), sums[0], dims.D, rate);
    blend(stats.mean_c.data<T>(), sums + dims.sum_c(), sums[0], dims.D, rate);
  }
  for (int64_t e = 0; e < dims.E; ++e) {
    const double pairs = sums[dims.pairs() + e];
    if (pairs == 0) continue;
    const double mean = sums[dims.sum_s() + e] / pairs;
    const double var = std::max(0.0, sums[dims.sum_s2() + e] / pairs - mean * mean);
    blend(stats.score_mean.data<T>() + e, &mean, 1, 1, rate);
    blend(stats.score_var.data<T>() + e, &var, 1, 1, rate);
  }
  const double* histogram = sums + dims.histogram();
  double total = 0;
  for (int64_t b = 0; b < RouterStatsDims::bins; ++b) total += histogram[b];
  if (total > 0) blend(stats.histogram.data<T>(), histogram, total, RouterStatsDims::bins, rate);
  *updates += 1;
}

}  // namespace

Tensor make_router_sums(const ExecContext& ctx, const RouterStatsDims& dims) {
  return Tensor::zeros(*ctx.allocator, {dims.size()}, DType::f64, "router statistics");
}

void accumulate_router_stats(const ExecContext& ctx, const Tensor& x, const Tensor& c, const Tensor& scores, const Tensor& allow, int64_t K,
                             const Tensor& sums) {
  const RouterStatsDims dims = dims_of(x, scores, K);
  check(sums.numel() == dims.size(), "[router_stats] sums {} but D={} E={}", sums.shape().str(), dims.D, dims.E);
  dispatch_compute(x.dtype(), "router_stats", [&](auto tag) {
    using T = decltype(tag);
    const T* context = c.defined() ? c.data<T>() : nullptr;
    const uint8_t* mask = allow.defined() ? allow.data<uint8_t>() : nullptr;
    on_device(
        ctx, tag, [&](auto) { cpu::accumulate_router_stats(dims, x.data<T>(), context, scores.data<T>(), mask, sums.data<double>()); },
        [&](auto) { cuda::accumulate_router_stats(ctx.stream, dims, x.data<T>(), context, scores.data<T>(), mask, sums.data<double>()); });
  });
}

void update_router_stats(const ExecContext&, const RouterStatsDims& dims, const Tensor& sums, double momentum, RouterStats& stats) {
  dispatch_compute(stats.mean_x.dtype(), "router_stats",
                   [&](auto tag) { update<decltype(tag)>(dims, sums.data<double>(), momentum, stats); });
}

Tensor calibrate_scores(const ExecContext& ctx, const Tensor& scores, const RouterStats& stats) {
  RouterStatsDims dims{.N = scores.shape()[0], .D = 0, .E = scores.shape()[1], .K = 0};
  check(stats.score_mean.numel() == dims.E, "[calibrate] scores {} but {} experts", scores.shape().str(), stats.score_mean.numel());
  Tensor order = ctx.empty(scores.shape(), scores.dtype());
  dispatch_compute(scores.dtype(), "calibrate", [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag,
        [&](auto) {
          cpu::calibrate_scores(dims, scores.data<T>(), stats.score_mean.data<T>(), stats.score_var.data<T>(), order.data<T>());
        },
        [&](auto) {
          cuda::calibrate_scores(ctx.stream, dims, scores.data<T>(), stats.score_mean.data<T>(), stats.score_var.data<T>(),
                                 order.data<T>());
        });
  });
  return order;
}

Tensor histogram_quantile(const ExecContext& ctx, const Tensor& histogram, double q) {
  Tensor result = ctx.empty({1}, histogram.dtype());
  dispatch_compute(histogram.dtype(), "quantile", [&](auto tag) {
    using T = decltype(tag);
    const T* share = histogram.data<T>();
    const auto bins = static_cast<double>(histogram.numel());
    double total = 0, below = 0, value = 1;
    for (T s : histogram.span<T>()) total += static_cast<double>(s);
    for (int64_t b = 0; b < histogram.numel(); ++b) {
      const auto here = static_cast<double>(share[b]);
      if (here > 0 && below + here >= q * total) {
        value = -1 + 2 * (static_cast<double>(b) + (q * total - below) / here) / bins;
        break;
      }
      below += here;
    }
    *result.data<T>() = static_cast<T>(value);
  });
  return result;
}

}  // namespace ermoe
