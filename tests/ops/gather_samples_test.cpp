// Samples are picked byte for byte, whatever their size and wherever they begin in memory.
#include "ops/gather_samples.h"

#include "tests/gpu_bench.h"
#include "tests/ops/expect_error.h"

#include <gtest/gtest.h>

namespace ermoe::testing {
namespace {

Tensor random_bytes(int64_t n, int64_t bytes) {
  const Tensor t = Tensor::empty(host_memory(), {n, bytes}, DType::u8);
  for (int64_t i = 0; i < t.numel(); ++i) t.data<uint8_t>()[i] = static_cast<uint8_t>(philox(RngKey{1}, static_cast<uint64_t>(i)).x[0]);
  return t;
}

/// 16, 4 and 1 bytes at a time, rows that begin at an odd address, one row twice, and indices outside.
void expect_rows(const ExecContext& ctx) {
  const std::vector<int32_t> indices{4, 0, 4, 6, -1, 7, 2147483647, 1};
  const Tensor at = Tensor::from<int32_t>(*ctx.allocator, {8}, indices);
  for (int64_t bytes : {48, 20, 7, 1})
    for (int64_t skipped : {0, 1}) {
      const Tensor all = random_bytes(7 + skipped, bytes);
      const Tensor samples = to_device(ctx, all).slice(skipped, 7 + skipped);
      const std::vector<uint8_t> picked = to_vector<uint8_t>(gather_samples(ctx, samples, at));
      ASSERT_EQ(picked.size(), static_cast<size_t>(8 * bytes));
      for (size_t b = 0; b < indices.size(); ++b)
        for (int64_t i = 0; i < bytes; ++i) {
          const bool inside = indices[b] >= 0 && indices[b] < 7;
          const uint8_t wanted = inside ? all.data<uint8_t>()[(indices[b] + skipped) * bytes + i] : 0;
          ASSERT_EQ(picked[b * static_cast<size_t>(bytes) + static_cast<size_t>(i)], wanted) << bytes << " bytes, row " << b;
        }
    }
}

void expect_shapes(const ExecContext& ctx) {
  const std::vector<int32_t> labels{5, 6, 7}, order{2, 0};
  const Tensor at = Tensor::from<int32_t>(*ctx.allocator, {2}, order);
  EXPECT_EQ(to_vector<int32_t>(gather_samples(ctx, Tensor::from<int32_t>(*ctx.allocator, {3}, labels), at)), (std::vector<int32_t>{7, 5}));
  const Tensor images = ctx.empty({3, 4, 4, 3}, DType::u8), none = ctx.empty({0}, DType::i32);
  EXPECT_EQ(gather_samples(ctx, images, at).shape(), (Shape{2, 4, 4, 3}));
  EXPECT_EQ(gather_samples(ctx, images, none).shape(), (Shape{0, 4, 4, 3}));
  EXPECT_EQ(to_vector<uint8_t>(gather_samples(ctx, ctx.empty({0, 2}, DType::u8), at)), std::vector<uint8_t>(4, 0));
}

TEST(GatherSamples, CopiesRowsAndLeavesZerosOutside) { expect_rows(TestBench().ctx); }

TEST(GatherSamples, KeepsShapeAndDtype) { expect_shapes(TestBench().ctx); }

TEST(GatherSamples, WrongInputsAreRefused) {
  TestBench bench;
  const Tensor images = bench.ctx.empty({3, 4}, DType::u8), at = bench.ctx.empty({2}, DType::i32);
  expect_error([&] { gather_samples(bench.ctx, images, bench.ctx.empty({2}, DType::f32)); }, {"[gather_samples]", "f32"});
  expect_error([&] { gather_samples(bench.ctx, images, bench.ctx.empty({2, 1}, DType::i32)); }, {"[gather_samples]", "(2, 1)"});
  expect_error([&] { gather_samples(bench.ctx, Tensor(), at); }, {"[gather_samples]"});
}

#if defined(ERMOE_WITH_CUDA)
TEST(GatherSamples, OnAGpu) {
  ERMOE_NEEDS_GPU({
    GpuBench bench;
    expect_rows(bench.ctx);
    expect_shapes(bench.ctx);
  });
}
#endif

}  // namespace
}  // namespace ermoe::testing
