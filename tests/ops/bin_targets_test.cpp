#include "ops/bin_targets.h"

#include "tests/bench.h"
#include "tests/gpu_bench.h"
#include "tests/ops/expect_error.h"

#include <gtest/gtest.h>

#include <cmath>

namespace ermoe::testing {
namespace {

const std::vector<double> ages{30, 47.3, 61.5, 10, 99.9};

Tensor column(CachingAllocator& allocator, const std::vector<double>& values) {
  return Tensor::from<double>(allocator, {std::ssize(values), 1}, values);
}

TEST(BinTargets, AreTheDensityOfANormalDistribution) {
  TestBench bench;
  const Bins fine{.low = 0, .width = 0.01, .count = 12000};
  const auto t = to_doubles(bin_targets(bench.ctx, column(bench.allocator, {50}), fine, 2));
  for (int64_t k = 0; k < fine.count; k += 7) {
    const double z = (fine.middle(k) - 50) / 2, density = std::exp(-z * z / 2) / (2 * std::sqrt(2 * 3.141592653589793));
    ASSERT_NEAR(t[static_cast<size_t>(k)] / fine.width, density, 1e-5);
  }
}

TEST(BinTargets, SumToOneAndExpectTheNumberInsideOfTheBins) {
  TestBench bench;
  for (const Bins& bins : {Bins{}, Bins{.low = 10, .width = 2, .count = 45}, Bins{.low = 10, .width = 0.5, .count = 180}})
    for (DType dtype : {DType::f64, DType::f32}) {
      const Tensor wide = column(bench.allocator, ages), numbers = bench.ctx.empty(wide.shape(), dtype);
      convert(wide, numbers);
      const auto t = to_doubles(bin_targets(bench.ctx, numbers, bins, std::max(1.0, bins.width)));
      for (size_t b = 0; b < ages.size(); ++b) {
        double sum = 0, expected = 0;
        for (int64_t k = 0; k < bins.count; ++k) {
          const double p = t[b * static_cast<size_t>(bins.count) + static_cast<size_t>(k)];
          EXPECT_GE(p, 0);
          sum += p;
          expected += p * bins.middle(k);
        }
        EXPECT_NEAR(sum, 1, 1e-6);
        if (b < 3) {
          EXPECT_NEAR(expected, ages[b], 1e-4);
        }
      }
    }
}

TEST(BinTargets, NumbersBeyondTheBinsCountAsTheirEnds) {
  TestBench bench;
  const Bins bins;
  const auto t = to_doubles(bin_targets(bench.ctx, column(bench.allocator, {-500, 10, 1e9, 100}), bins, 1));
  for (size_t k = 0; k < 90; ++k) {
    EXPECT_EQ(t[k], t[90 + k]);
    EXPECT_EQ(t[180 + k], t[270 + k]);
  }
  EXPECT_GT(t[0], 0.6);
  EXPECT_GT(t[359], 0.6);
  EXPECT_TRUE(std::isnan(to_doubles(bin_targets(bench.ctx, column(bench.allocator, {std::nan("")}), bins, 1))[5]));
}

TEST(BinTargets, ASmallDeviationMakesOneBin) {
  TestBench bench;
  const auto t = to_doubles(bin_targets(bench.ctx, column(bench.allocator, {42.5}), Bins{}, 1e-6));
  for (size_t k = 0; k < t.size(); ++k) EXPECT_EQ(t[k], k == 32);
}

#if defined(ERMOE_WITH_CUDA)
void expect_gpu_agrees() {
  TestBench cpu;
  GpuBench gpu;
  const Tensor numbers = cpu.ctx.empty({5, 1}, DType::f32);
  convert(column(cpu.allocator, ages), numbers);
  const Tensor here = bin_targets(cpu.ctx, numbers, Bins{}, 1), there = bin_targets(gpu.ctx, to_device(gpu.ctx, numbers), Bins{}, 1);
  EXPECT_LE(normalised_error(to_doubles(there), to_doubles(here)), 1e-12);
  EXPECT_EQ(bin_targets(gpu.ctx, gpu.ctx.empty({0, 1}, DType::f32), Bins{}, 1).shape(), (Shape{0, 90}));
}

TEST(BinTargets, OnAGpuAgree) { ERMOE_NEEDS_GPU(expect_gpu_agrees()); }
#endif

TEST(BinTargets, WrongInputsAreRefused) {
  TestBench bench;
  expect_error([&] { bin_targets(bench.ctx, bench.ctx.empty({3, 2}, DType::f32), Bins{}, 1); }, {"[bin_targets]", "(3, 2)"});
  expect_error([&] { bin_targets(bench.ctx, bench.ctx.empty({3, 1}, DType::f32), Bins{}, 0); }, {"[bin_targets]", "deviation of 0"});
  expect_error([&] { bin_targets(bench.ctx, bench.ctx.empty({3, 1}, DType::f32), Bins{.count = 0}, 1); }, {"[bin_targets]", "0 bins"});
}

}  // namespace
}  // namespace ermoe::testing
