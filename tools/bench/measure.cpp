#include "tools/bench/measure.h"

#include "core/flat.h"
#include "ops/matmul.h"

#include <cblas.h>

#include <algorithm>
#include <cmath>

namespace ermoe {
namespace {

/// The value below which a share `q` of the sorted values lies, linear between two of them.
double quantile(const std::vector<double>& sorted, double q) {
  const double at = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return std::lerp(sorted[below], sorted[above], at - static_cast<double>(below));
}

/// A context that computes without a tape.
ExecContext plain(const Engine& engine) { return engine.ctx.with_tape(nullptr); }

Tensor random(const ExecContext& ctx, const Shape& shape, DType dtype, uint64_t key) {
  const Tensor t = ctx.empty(shape, dtype, "benchmark");
  fill_uniform(t, RngKey{key});
  return t;
}

}  // namespace

Timing timing_of(std::vector<double> seconds) {
  std::ranges::sort(seconds);
  const double median = quantile(seconds, 0.5), width = quantile(seconds, 0.75) - quantile(seconds, 0.25);
  return {.median = median, .min = seconds.front(), .max = seconds.back(), .spread = median > 0 ? width / median : 0};
}

Sweep::Sweep(const Engine& engine) : ctx_(plain(engine)) {
  if (!engine.gpu) return;
  a_ = random(ctx_, {1024, 65536}, DType::bf16, 1);  // 128 MiB each, and about 0.3 ms of an H100
  b_ = random(ctx_, {1024, 65536}, DType::bf16, 2);
}

void Sweep::operator()() const {
  if (a_.defined()) matmul(ctx_, Variable(a_), Variable(b_), Trans::no, Trans::yes);
}

Timing time_runs(WorkClock& clock, const Rounds& rounds, const std::function<void()>& prepare, const std::function<void()>& timed) {
  std::vector<double> times;
  double total = 0;
  for (int64_t round = 0; round < rounds.warmup + rounds.runs || total < rounds.seconds; ++round) {
    if (prepare) prepare();
    clock.start();
    timed();
    const double passed = clock.stop();
    if (round < rounds.warmup) continue;
    times.push_back(passed);
    total += passed;
  }
  return timing_of(std::move(times));
}

double matrix_rate(const Engine& engine, DType dtype) {
  const int64_t size = engine.gpu ? 8192 : 2048;
  const ExecContext ctx = plain(engine);
  const Variable a(random(ctx, {size, size}, dtype, 1)), b(random(ctx, {size, size}, dtype, 2));
  WorkClock clock(engine);
  const Rounds rounds = engine.gpu ? Rounds{.warmup = 5, .runs = 20} : Rounds{.warmup = 1, .runs = 5};
  const Timing t = time_runs(clock, rounds, {}, [&] { matmul(ctx, a, b); });
  const auto n = static_cast<double>(size);
  return 2 * n * n * n / t.median;
}

double copy_bandwidth(const Engine& engine) {
  const int64_t elements = int64_t{1} << (engine.gpu ? 27 : 24);
  const Tensor from = random(engine.ctx, {elements}, DType::f32, 1), to = from.clone("benchmark");
  WorkClock clock(engine);
  const auto copied = [&] {
    if (engine.gpu) return copy(from, to);
    convert(from, to);  // on all threads
  };
  const Timing t = time_runs(clock, {.warmup = 2, .runs = 10}, {}, copied);
  return 2 * static_cast<double>(from.bytes()) / t.median;
}

std::string blas_core() {
#if defined(OPENBLAS_VERSION)
  return openblas_get_corename();
#else
  return "unknown";
#endif
}

void fill_uniform(const Tensor& t, RngKey key) {
  if (t.device().is_cuda()) {
    CachingAllocator host(make_host_source());
    const Tensor drawn = Tensor::empty(host, t.shape(), DType::f32);
    fill_uniform(drawn, key);
    if (t.dtype() == DType::f32) return copy(drawn, t);
    return convert(drawn.to(t.allocator()), t);
  }
  dispatch_float(t.dtype(), "fill_uniform", [&](auto tag) {
    using T = decltype(tag);
    T* out = t.data<T>();
    const int64_t n = t.numel();
#pragma omp parallel for schedule(static)
    for (int64_t group = 0; group < (n + 3) / 4; ++group) {
      const Random4 words = philox(key, static_cast<uint64_t>(group));
      for (int64_t i = 4 * group; i < std::min(n, 4 * group + 4); ++i) out[i] = static_cast<T>(uniform(words.x[i - 4 * group]) - 0.5f);
    }
  });
}

}  // namespace ermoe
