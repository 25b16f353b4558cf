#include "ops/balance_bias.h"

#include "tests/gpu_bench.h"
#include "tests/ops/expect_error.h"

#include <gtest/gtest.h>

namespace ermoe::testing {
namespace {

TEST(AddCounts, AddsToWhatIsThere) {
  TestBench bench;
  const std::vector<int32_t> counts = {3, 0, 16'000'000};
  const std::vector<float> before = {1, 2, 777'215};
  const Tensor loads = Tensor::from<float>(bench.allocator, {3}, before);
  add_counts(bench.ctx, Tensor::from<int32_t>(bench.allocator, {3}, counts), loads);
  EXPECT_EQ(to_vector<float>(loads), (std::vector<float>{4, 2, 16'777'215}));
  expect_error([&] { add_counts(bench.ctx, bench.ctx.empty({4}, DType::i32), loads); }, {"[add_counts]", "(4)", "(3)"});
  expect_error([&] { add_counts(bench.ctx, loads, loads); }, {"[add_counts]", "f32"});
}

TEST(MoveBiases, GoAgainstTheLoad) {
  TestBench bench;
  const auto moved = [&](const std::vector<double>& loads, std::vector<double> bias) {
    const auto E = static_cast<int64_t>(loads.size());
    const Tensor t = Tensor::from<double>(bench.allocator, {E}, bias);
    move_biases(bench.ctx, Tensor::from<double>(bench.allocator, {E}, loads), 0.5, t);
    return to_doubles(t);
  };
  EXPECT_EQ(moved({4, 1, 2, 1}, {1, 1, 1, 1}), (std::vector<double>{0.5, 1.5, 1, 1.5}));  // the mean is 2
  EXPECT_EQ(moved({1, 1, 2}, {0, 0, 0}), (std::vector<double>{0.5, 0.5, -0.5}));          // the mean is no whole number
  EXPECT_EQ(moved({5, 5}, {1, 2}), (std::vector<double>{1, 2}));
  EXPECT_EQ(moved({7}, {3}), (std::vector<double>{3}));
  expect_error([&] { move_biases(bench.ctx, bench.ctx.empty({4}, DType::f32), 0.5, bench.ctx.empty({4}, DType::f64)); },
               {"[move_biases]", "f32", "f64"});
}

/// Whole numbers that the sum of loads in float would round.
TEST(MoveBiases, SeesALoadThatIsOneTooMany) {
  TestBench bench;
  const std::vector<float> loads = {8'388'609, 8'388'608, 8'388'608, 8'388'608};
  const Tensor bias = Tensor::zeros(bench.allocator, {4}, DType::f32);
  move_biases(bench.ctx, Tensor::from<float>(bench.allocator, {4}, loads), 1, bias);
  EXPECT_EQ(to_vector<float>(bias), (std::vector<float>{-1, 1, 1, 1}));
}

#if defined(ERMOE_WITH_CUDA)

void expect_gpu_moves_as_cpu() {
  for (const int64_t E : {1, 8, 129, 700}) {
    TestBench cpu;
    GpuBench gpu;
    std::vector<int32_t> counts;
    for (int64_t e = 0; e < E; ++e) counts.push_back(static_cast<int32_t>(uniform_int(RngKey{3}, static_cast<uint64_t>(e), 5)));
    const auto after_two = [&](const ExecContext& ctx) {
      const Tensor from = Tensor::from<int32_t>(*ctx.allocator, {E}, counts), loads = ctx.empty({E}, DType::f32),
                   bias = ctx.empty({E}, DType::f32);
      fill(loads, 0);
      fill(bias, 0.25);
      for (int i = 0; i < 2; ++i) {
        add_counts(ctx, from, loads);
        move_biases(ctx, loads, 1e-3, bias);
      }
      return std::pair{to_vector<float>(loads), to_vector<float>(bias)};
    };
    EXPECT_EQ(after_two(gpu.ctx), after_two(cpu.ctx)) << E;
  }
}

TEST(BalanceBiasOnGpu, DoesAsTheCpu) { ERMOE_NEEDS_GPU(expect_gpu_moves_as_cpu()); }

#endif

}  // namespace
}  // namespace ermoe::testing
