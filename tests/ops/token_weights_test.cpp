#include "ops/token_weights.h"

#include "tests/bench.h"
#include "tests/gpu_bench.h"
#include "tests/ops/expect_error.h"

#include <gtest/gtest.h>

#include <vector>

namespace ermoe::testing {
namespace {

// Two groups of four tokens: one of them padding, and all but one.
const std::vector<uint8_t> mask{1, 1, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1, 0, 0};

template <typename Bench>
std::vector<double> weights_of(Bench& bench, const std::vector<uint8_t>& allow, int64_t groups, DType dtype) {
  const Tensor on = Tensor::from<uint8_t>(*bench.ctx.allocator, {std::ssize(allow) / 2, 2}, allow);
  return to_doubles(on_host(bench.ctx, token_weights(bench.ctx, on, groups, dtype)));
}

template <typename Bench>
void expect_weights(Bench& bench, DType dtype) {
  const auto third = dtype == DType::f64 ? 4.0 / 3 : static_cast<double>(4.0f / 3);
  EXPECT_EQ(weights_of(bench, mask, 2, dtype), (std::vector<double>{third, third, 0, third, 0, 0, 4, 0}));
  EXPECT_EQ(weights_of(bench, mask, 1, dtype), (std::vector<double>{2, 2, 0, 2, 0, 0, 2, 0}));
  EXPECT_EQ(weights_of(bench, {0, 0, 0, 0}, 1, dtype), (std::vector<double>{0, 0}));  // not a number would spread
  EXPECT_EQ(weights_of(bench, {}, 1, dtype), std::vector<double>());
  std::vector<uint8_t> many(2 * 5000, 1);
  many[2 * 4321] = many[2 * 4321 + 1] = 0;
  const auto weights = weights_of(bench, many, 1, dtype);
  EXPECT_NEAR(weights[0], 5000.0 / 4999, 1e-7);
  EXPECT_EQ(weights[4321], 0);
  EXPECT_EQ(weights[4999], weights[0]);
}

TEST(TokenWeights, AreTheRowsOverThoseThatCount) {
  TestBench bench;
  expect_weights(bench, DType::f64);
  expect_weights(bench, DType::f32);
}

#if defined(ERMOE_WITH_CUDA)
void expect_gpu_agrees() {
  GpuBench gpu;
  expect_weights(gpu, DType::f32);
}

TEST(TokenWeights, OnAGpuAreTheSame) { ERMOE_NEEDS_GPU(expect_gpu_agrees()); }
#endif

TEST(TokenWeights, OtherTensorsAreRefused) {
  TestBench bench;
  expect_error([&] { token_weights(bench.ctx, Tensor(), 1, DType::f32); }, {"[token_weights]", "undefined"});
  expect_error(
      [&] {
        token_weights(bench.ctx, Tensor::zeros(bench.allocator, {4, 2}, DType::f32), 1, DType::f32);
      },
      {"[token_weights]", "f32"});
  expect_error([&] { token_weights(bench.ctx, Tensor::zeros(bench.allocator, {4}, DType::u8), 1, DType::f32); },
               {"[token_weights]", "(4)"});
  expect_error(
      [&] {
        token_weights(bench.ctx, Tensor::zeros(bench.allocator, {4, 2}, DType::u8), 3, DType::f32);
      },
      {"[token_weights]", "4 rows in 3 groups"});
}

}  // namespace
}  // namespace ermoe::testing
