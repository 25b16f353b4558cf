// Masks of experts against a count by the definition.
#include "ops/region_mask.h"

#include "tests/bench.h"
#include "tests/gpu_bench.h"
#include "tests/ops/expect_error.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace ermoe::testing {
namespace {

using Labels = std::vector<std::vector<int64_t>>;

/// (B, sides) of labels 0 … 6, in runs so that patches have few.
Tensor random_labels(const ExecContext& ctx, int64_t batch, const Shape& sides, DType dtype) {
  const Tensor t = ctx.empty({batch, sides[0], sides[1], sides[2]}, dtype);
  for (int64_t i = 0; i < t.numel(); ++i) {
    const auto label = static_cast<int32_t>(uniform_int(RngKey{5}, static_cast<uint64_t>(i / 3), 7));
    if (dtype == DType::i32)
      t.data<int32_t>()[i] = label;
    else
      t.data<float>()[i] = static_cast<float>(label) + (i % 2 == 0 ? 0.3f : -0.3f);  // resampling leaves no such thing, but rounds
  }
  return t;
}

bool in_region(const std::vector<int64_t>& region, int64_t label) { return std::ranges::find(region, label) != region.end(); }

/// By the definition; labels i32.
std::vector<uint8_t> oracle(const Tensor& labels, const Labels& regions, int64_t patch, int64_t prefix, double share) {
  const Shape& s = labels.shape();
  std::vector<uint8_t> allow;
  const auto E = regions.size();
  for (int64_t b = 0; b < s[0]; ++b) {
    allow.insert(allow.end(), static_cast<size_t>(prefix) * E, 0);
    for (int64_t i = 0; i < s[1]; i += patch)
      for (int64_t j = 0; j < s[2]; j += patch)
        for (int64_t k = 0; k < s[3]; k += patch)
          for (const auto& region : regions) {
            double count = 0;
            for (int64_t u = i; u < i + patch; ++u)
              for (int64_t v = j; v < j + patch; ++v)
                for (int64_t w = k; w < k + patch; ++w)
                  count += in_region(region, labels.data<int32_t>()[((b * s[1] + u) * s[2] + v) * s[3] + w]);
            allow.push_back(count / static_cast<double>(patch * patch * patch) > share);
          }
  }
  return allow;
}

const Labels many_to_many{{1, 2}, {2}, {3, 5, 1}, {4}, {}};  // 6 belongs to nobody, and the last expert has nothing

TEST(RegionMask, CountsVoxelsOfAllLabelsOfAnExpert) {
  TestBench bench;
  const RegionTable table = make_region_table(bench.ctx, many_to_many);
  int64_t ones = 0, zeros = 0;
  for (int64_t prefix : {0, 1})
    for (double share : {0.0, 0.1, 0.25, 0.5, 0.9})
      for (auto [patch, sides] : {std::pair<int64_t, Shape>{2, {4, 6, 8}}, {3, {3, 9, 6}}, {1, {2, 3, 5}}, {7, {7, 14, 7}}}) {
        const Tensor labels = random_labels(bench.ctx, 3, sides, DType::i32);
        const auto want = oracle(labels, many_to_many, patch, prefix, share);
        const Tensor got = region_mask(bench.ctx, labels, table, patch, prefix, share);
        EXPECT_EQ(got.shape(), (Shape{3 * (prefix + sides.numel() / (patch * patch * patch)), 5}));
        EXPECT_EQ(to_vector<uint8_t>(got), want) << "patch " << patch << " share " << share;
        const Tensor rounded = random_labels(bench.ctx, 3, sides, DType::f32);
        EXPECT_EQ(to_vector<uint8_t>(region_mask(bench.ctx, rounded, table, patch, prefix, share)), want);
        ones += std::ranges::count(want, 1), zeros += std::ranges::count(want, 0);
      }
  EXPECT_TRUE(ones > 200 && zeros > 200) << "no test";
}

TEST(RegionMask, AShareIsToBeExceeded) {
  TestBench bench;
  const RegionTable table = make_region_table(bench.ctx, {{3}});
  const Tensor labels = Tensor::zeros(bench.allocator, {1, 2, 2, 2}, DType::i32);
  labels.data<int32_t>()[0] = labels.data<int32_t>()[7] = 3;
  const auto allowed = [&](double share) { return region_mask(bench.ctx, labels, table, 2, 0, share).data<uint8_t>()[0]; };
  EXPECT_EQ(allowed(0.24), 1);
  EXPECT_EQ(allowed(0.25), 0);
}

TEST(RegionMask, LabelsThatTheTableDoesNotKnowAreNobodys) {
  TestBench bench;
  const RegionTable table = make_region_table(bench.ctx, {{1}, {2}});
  const Tensor strange = bench.ctx.empty({1, 1, 1, 6}, DType::f32), whole = bench.ctx.empty({1, 1, 1, 6}, DType::i32);
  std::ranges::copy(std::array{-1.0f, 2.6f, NAN, INFINITY, 1e30f, 0.4f}, strange.data<float>());
  std::ranges::copy(std::array{-1, 3, 1 << 30, INT32_MIN, INT32_MAX, 0}, whole.data<int32_t>());
  for (const Tensor& labels : {strange, whole})
    for (uint8_t allowed : to_vector<uint8_t>(region_mask(bench.ctx, labels, table, 1, 0, 0))) EXPECT_EQ(allowed, 0);
  EXPECT_EQ(region_mask(bench.ctx, bench.ctx.empty({0, 2, 2, 2}, DType::i32), table, 1, 1, 0).shape(), (Shape{0, 2}));
}

#if defined(ERMOE_WITH_CUDA)
void expect_gpu_agrees() {
  TestBench cpu;
  GpuBench gpu;
  const RegionTable here = make_region_table(cpu.ctx, many_to_many), there = make_region_table(gpu.ctx, many_to_many);
  for (DType dtype : {DType::i32, DType::f32})
    for (auto [patch, sides] : {std::pair<int64_t, Shape>{2, {4, 6, 8}}, {1, {2, 3, 5}}, {7, {7, 14, 21}}}) {
      const Tensor labels = random_labels(cpu.ctx, 3, sides, dtype);
      for (int64_t prefix : {0, 1})
        EXPECT_EQ(to_vector<uint8_t>(region_mask(gpu.ctx, to_device(gpu.ctx, labels), there, patch, prefix, 0.2)),
                  to_vector<uint8_t>(region_mask(cpu.ctx, labels, here, patch, prefix, 0.2)));
    }
  EXPECT_EQ(region_mask(gpu.ctx, gpu.ctx.empty({0, 2, 2, 2}, DType::i32), there, 1, 1, 0).shape(), (Shape{0, 5}));
}

TEST(RegionMask, OnAGpuIsTheSame) { ERMOE_NEEDS_GPU(expect_gpu_agrees()); }
#endif

TEST(RegionMask, WrongInputsAreRefused) {
  TestBench bench;
  const RegionTable table = make_region_table(bench.ctx, {{1}});
  const auto run = [&](const Shape& shape, DType dtype, int64_t patch, double share) {
    return [&, shape, dtype, patch, share] { region_mask(bench.ctx, bench.ctx.empty(shape, dtype), table, patch, 0, share); };
  };
  expect_error(run({2, 4, 4, 5}, DType::i32, 2, 0), {"[region_mask]", "(2, 4, 4, 5)", "patches of 2"});
  expect_error(run({4, 4, 4}, DType::i32, 2, 0), {"[region_mask]", "(4, 4, 4)"});
  expect_error(run({2, 4, 4, 4}, DType::u8, 2, 0), {"[region_mask]", "u8"});
  for (double share : {-0.1, 1.0, std::nan("")}) expect_error(run({2, 4, 4, 4}, DType::i32, 2, share), {"[region_mask]", "share"});
  expect_error([&] { make_region_table(bench.ctx, {{0}}); }, {"[region_mask]", "label 0"});
}

}  // namespace
}  // namespace ermoe::testing
