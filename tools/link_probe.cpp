#include "tools/link_probe.h"

#include "core/gather.h"
#include "tools/bench/measure.h"

#include <algorithm>

namespace ermoe {
namespace {

constexpr int64_t small_bytes = int64_t{4} << 10, first_bytes = int64_t{256} << 10, most_bytes = int64_t{4} << 20;
constexpr double enough_s = 0.04;  // of one size: the next is four times as large

/// Seconds of a call on the rank that takes longest, the median of a few.
double seconds_of(const Engine& engine, const std::function<void()>& call) {
  constexpr int warmup = 1, rounds = 5;
  WorkClock clock(engine);
  std::vector<double> seconds;
  for (int i = 0; i < warmup + rounds; ++i) {
    if (engine.gpu) engine.gpu->synchronize();
    engine.ctx.comm->barrier();
    clock.start();
    call();
    const double passed = clock.stop();
    if (i >= warmup) seconds.push_back(passed);
  }
  reduce_over_ranks(*engine.ctx.comm, seconds, ReduceOp::max);
  return timing_of(std::move(seconds)).median;
}

/// `call` moves so many elements in all; a rank sends `share` of their bytes.
Link measure(const Engine& engine, double share, const std::function<void(int64_t elements)>& call) {
  const double latency = seconds_of(engine, [&] { call(small_bytes / 4); });
  int64_t bytes = first_bytes;
  double seconds = 0;
  for (;; bytes *= 4) {
    seconds = seconds_of(engine, [&] { call(bytes / 4); });  // the same on all ranks: they stop together
    if (bytes == most_bytes || seconds > enough_s / 4) break;
  }
  return {.latency = latency, .rate = share * static_cast<double>(bytes) / std::max(seconds - latency, 0.1 * seconds)};
}

}  // namespace

Links measure_links(const Engine& engine) {
  Communicator& ranks = *engine.ctx.comm;
  const int64_t W = ranks.size();
  const double others = static_cast<double>(W - 1) / static_cast<double>(W);
  const Tensor from = engine.ctx.empty({most_bytes / 4}, DType::f32, "probe"), to = engine.ctx.empty({most_bytes / 4}, DType::f32, "probe");
  zero(from);
  Links links;
  // A reduction over all sends what a reduction to parts and a gathering of parts do.
  links.reduce = measure(engine, 2 * others, [&](int64_t n) { ranks.all_reduce(from.slice(0, n), ReduceOp::sum); });
  links.exchange = measure(engine, others, [&](int64_t n) {
    const std::vector<int64_t> rows(static_cast<size_t>(W), n / W);
    ranks.all_to_all(from.slice(0, n / W * W), rows, to.slice(0, n / W * W), rows);
  });
  return links;
}

}  // namespace ermoe
