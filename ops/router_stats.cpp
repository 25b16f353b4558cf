#include "ops/router_stats.h"

#include "ops/optional_tensor.h"

#include <cstddef>

namespace ermoe {
namespace {

RouterStatsDims dims_of(const Tensor& x, const Tensor& scores, int64_t K) {
  RouterStatsDims dims{.N = scores.shape()[0], .D = x.shape()[1], .E = scores.shape()[1], .K = K};
  check(x.shape()[0] == dims.N, "[router_stats] x {} but scores {}", x.shape().str(), scores.shape().str());
  return dims;
}

template <typename T>
RunningStats<T> running_of(const RouterStats& stats) {
  return {.mean_x = stats.mean_x.data<T>(),
          .mean_c = stats.mean_c.data<T>(),
          .score_mean = stats.score_mean.data<T>(),
          .score_var = stats.score_var.data<T>(),
          .histogram = stats.histogram.data<T>(),
          .updates = stats.updates.data<T>()};
}

}  // namespace

Tensor make_router_sums(const ExecContext& ctx, const RouterStatsDims& dims) {
  return Tensor::zeros(*ctx.allocator, {dims.size()}, DType::f64, "router statistics");
}

void accumulate_router_stats(const ExecContext& ctx, const Tensor& x, const Tensor& c, const Tensor& scores, const Tensor& allow, int64_t K,
                             const Tensor& sums, ClosedTokens closed) {
  RouterStatsDims dims = dims_of(x, scores, K);
  dims.closed = allow.defined() ? closed : ClosedTokens::count;
  check(sums.numel() == dims.size(), "[router_stats] sums {} but D={} E={}", sums.shape().str(), dims.D, dims.E);
  dispatch_compute(x.dtype(), "router_stats", [&](auto tag) {
    using T = decltype(tag);
    const T* context = data_or_null<T>(c);
    const auto* s = scores.data<Master<T>>();
    const uint8_t* mask = data_or_null<uint8_t>(allow);
    on_device(
        ctx, tag, [&](auto) { cpu::accumulate_router_stats(dims, x.data<T>(), context, s, mask, sums.data<double>()); },
        [&](auto) {
          const auto scratch = ctx.workspace->borrow<std::byte>(cuda::router_stats_scratch(dims));
          cuda::accumulate_router_stats(ctx.stream, dims, x.data<T>(), context, s, mask, sums.data<double>(), scratch.data());
        });
  });
}

void update_router_stats(const ExecContext& ctx, const RouterStatsDims& dims, const Tensor& sums, double momentum,
                         const RouterStats& stats) {
  check(sums.numel() == dims.size(), "[router_stats] sums {} but D={} E={}", sums.shape().str(), dims.D, dims.E);
  dispatch_float(stats.mean_x.dtype(), "router_stats", [&](auto tag) {
    const auto running = running_of<decltype(tag)>(stats);
    on_device(
        ctx, tag, [&](auto) { cpu::update_router_stats(dims, sums.data<double>(), momentum, running); },
        [&](auto) { cuda::update_router_stats(ctx.stream, dims, sums.data<double>(), momentum, running); });
  });
}

Tensor calibrate_scores(const ExecContext& ctx, const Tensor& scores, const RouterStats& stats) {
  const RouterStatsDims dims{.N = scores.shape()[0], .D = 0, .E = scores.shape()[1], .K = 0};
  check(stats.score_mean.numel() == dims.E, "[calibrate] scores {} but {} experts", scores.shape().str(), stats.score_mean.numel());
  Tensor order = ctx.empty(scores.shape(), scores.dtype());
  dispatch_float(scores.dtype(), "calibrate", [&](auto tag) {
    using T = decltype(tag);
    const auto running = running_of<T>(stats);
    on_device(
        ctx, tag, [&](auto) { cpu::calibrate_scores(dims, scores.data<T>(), running, order.data<T>()); },
        [&](auto) { cuda::calibrate_scores(ctx.stream, dims, scores.data<T>(), running, order.data<T>()); });
  });
  return order;
}

Tensor histogram_quantile(const ExecContext& ctx, const Tensor& histogram, double q) {
  Tensor value = ctx.empty({1}, histogram.dtype());
  dispatch_float(histogram.dtype(), "quantile", [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag, [&](auto) { cpu::histogram_quantile(histogram.numel(), histogram.data<T>(), q, value.data<T>()); },
        [&](auto) { cuda::histogram_quantile(ctx.stream, histogram.numel(), histogram.data<T>(), q, value.data<T>()); });
  });
  return value;
}

}  // namespace ermoe
