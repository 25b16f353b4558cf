#include "ops/caption_ends.h"

#include "tests/bench.h"
#include "tests/gpu_bench.h"
#include "tests/ops/expect_error.h"

#include <gtest/gtest.h>

#include <vector>

namespace ermoe::testing {
namespace {

const std::vector<int32_t> captions{7, 1, 2, 9, 0, 0,   // an end and padding behind it
                                    7, 1, 9, 9, 9, 9,   // padding that looks like the end: the first counts
                                    7, 1, 2, 3, 4, 5,   // cut off
                                    9, 1, 2, 3, 4, 9};  // nothing before the end

template <typename Bench>
void expect_ends(Bench& bench) {
  const Tensor tokens = Tensor::from<int32_t>(*bench.ctx.allocator, {4, 6}, captions);
  const CaptionEnds ends = caption_ends(bench.ctx, tokens, 9, 2);
  const Tensor index = on_host(bench.ctx, ends.index), allow = on_host(bench.ctx, ends.allow);
  const std::vector<int32_t> wanted{3, 2, 5, 0};
  ASSERT_EQ(allow.shape(), (Shape{24, 2}));
  for (int64_t b = 0; b < 4; ++b) {
    EXPECT_EQ(index.data<int32_t>()[b], wanted[static_cast<size_t>(b)]);
    for (int64_t t = 0; t < 6; ++t)
      for (int64_t e = 0; e < 2; ++e)
        EXPECT_EQ(allow.data<uint8_t>()[(b * 6 + t) * 2 + e], t <= wanted[static_cast<size_t>(b)]) << b << " " << t;
  }
  const CaptionEnds alone = caption_ends(bench.ctx, tokens, 9, 0);
  EXPECT_FALSE(alone.allow.defined());
  EXPECT_EQ(on_host(bench.ctx, alone.index).template data<int32_t>()[1], 2);
}

TEST(CaptionEnds, AreTheFirstEndTokens) {
  TestBench bench;
  expect_ends(bench);
}

#if defined(ERMOE_WITH_CUDA)
void expect_gpu_agrees() {
  GpuBench gpu;
  expect_ends(gpu);
}

TEST(CaptionEnds, OnAGpuAreTheSame) { ERMOE_NEEDS_GPU(expect_gpu_agrees()); }
#endif

TEST(CaptionEnds, OtherTensorsAreRefused) {
  TestBench bench;
  expect_error([&] { caption_ends(bench.ctx, Tensor(), 1, 0); }, {"[caption_ends]", "undefined"});
  expect_error([&] { caption_ends(bench.ctx, Tensor::zeros(bench.allocator, {4}, DType::i32), 1, 0); }, {"[caption_ends]", "(4)"});
  expect_error([&] { caption_ends(bench.ctx, Tensor::zeros(bench.allocator, {4, 2}, DType::f32), 1, 0); }, {"[caption_ends]", "f32"});
}

}  // namespace
}  // namespace ermoe::testing
