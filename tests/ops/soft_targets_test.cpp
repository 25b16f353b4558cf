#include "ops/soft_targets.h"

#include "tests/bench.h"
#include "tests/gpu_bench.h"
#include "tests/ops/expect_error.h"

#include <gtest/gtest.h>

namespace ermoe::testing {
namespace {

TEST(SoftTargets, SmoothsAndKeepsTheSumAtOne) {
  TestBench bench;
  const std::vector<int32_t> labels{2, 0, 6, 6, 1};
  for (double smoothing : {0.0, 0.1, 1.0})
    for (DType dtype : {DType::f32, DType::f64}) {
      const double exact = dtype == DType::f32 ? 1e-6 : 1e-15;
      const auto t = to_doubles(soft_targets(bench.ctx, Tensor::from<int32_t>(bench.allocator, {5}, labels), 7, smoothing, dtype));
      for (size_t b = 0; b < 5; ++b) {
        double sum = 0;
        for (size_t y = 0; y < 7; ++y) {
          sum += t[b * 7 + y];
          const double hit = static_cast<size_t>(labels[b]) == y ? 1 : 0;
          EXPECT_NEAR(t[b * 7 + y], (1 - smoothing) * hit + smoothing / 7, exact);
        }
        EXPECT_NEAR(sum, 1, exact);
      }
    }
}

TEST(SoftTargets, RefusesWhatIsNoLabel) {
  TestBench bench;
  const auto labels = [&](std::vector<int32_t> v) { return Tensor::from<int32_t>(bench.allocator, {static_cast<int64_t>(v.size())}, v); };
  expect_error([&] { soft_targets(bench.ctx, labels({0, 3}), 3, 0); }, {"[soft_targets]", "label 3 of sample 1"});
  expect_error([&] { soft_targets(bench.ctx, labels({-1}), 3, 0); }, {"[soft_targets]", "label -1 of sample 0"});
  expect_error([&] { soft_targets(bench.ctx, labels({0}), 3, 1.5); }, {"[soft_targets]", "1.5"});
  expect_error([&] { soft_targets(bench.ctx, Tensor::zeros(bench.allocator, {2}, DType::f32), 3, 0); }, {"[soft_targets]", "f32 (2)"});
}

#if defined(ERMOE_WITH_CUDA)
void expect_gpu_agrees() {
  TestBench cpu;
  GpuBench gpu;
  const std::vector<int32_t> labels{2, 0, 6, 6, 1};
  for (double smoothing : {0.0, 0.1, 1.0}) {
    const auto on = [&](auto& bench) {
      return to_vector<float>(soft_targets(bench.ctx, Tensor::from<int32_t>(bench.allocator, {5}, labels), 7, smoothing));
    };
    EXPECT_EQ(on(gpu), on(cpu));
  }
  const std::vector<int32_t> bad{0, 7, -1};
  const auto t = to_doubles(soft_targets(gpu.ctx, Tensor::from<int32_t>(gpu.allocator, {3}, bad), 7, 0));
  for (size_t i = 0; i < t.size(); ++i) EXPECT_EQ(std::isnan(t[i]), i >= 7);
}

TEST(SoftTargets, OnAGpuAreThoseOfTheCpu) { ERMOE_NEEDS_GPU(expect_gpu_agrees()); }
#endif

}  // namespace
}  // namespace ermoe::testing
