#include "tools/bench/measure.h"

#include "models/step_times.h"
#include "ops/matmul.h"

#include <cblas.h>

#include <algorithm>

namespace ermoe {

Timing timing_of(std::vector<double> seconds) {
  std::ranges::sort(seconds);
  return {.median = seconds[seconds.size() / 2], .min = seconds.front(), .max = seconds.back()};
}

Timing time_runs(int64_t warmup, int64_t runs, double seconds, const std::function<void()>& prepare, const std::function<void()>& timed) {
  std::vector<double> times;
  double total = 0;
  for (int64_t round = 0; round < warmup + runs || total < seconds; ++round) {
    if (prepare) prepare();
    Stopwatch watch;
    timed();
    const double passed = watch.lap();
    if (round < warmup) continue;
    times.push_back(passed);
    total += passed;
  }
  return timing_of(std::move(times));
}

double matrix_rate(const ExecContext& ctx, int64_t size) {
  const Tensor a = ctx.empty({size, size}, DType::f32), b = ctx.empty({size, size}, DType::f32);
  fill_uniform(a, RngKey{1});
  fill_uniform(b, RngKey{2});
  const ExecContext plain = ctx.with_tape(nullptr);
  const Timing t = time_runs(1, 5, 0, {}, [&] { matmul(plain, Variable(a), Variable(b)); });
  const auto n = static_cast<double>(size);
  return 2 * n * n * n / t.median / 1e9;
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
    const Tensor drawn = Tensor::empty(host, t.shape(), t.dtype());
    fill_uniform(drawn, key);
    return copy(drawn, t);
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
