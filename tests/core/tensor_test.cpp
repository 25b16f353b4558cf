// Tensors: views share memory and stay inside it, copies do not, conversions round as IEEE says.
#include "core/tensor.h"

#include "core/flat.h"
#include "core/rng.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

namespace ermoe::testing {
namespace {

class TensorTest : public ::testing::Test {
 protected:
  Tensor counting(const Shape& shape) {
    Tensor t = Tensor::empty(allocator_, shape, DType::f32);
    for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = static_cast<float>(i);
    return t;
  }
  CachingAllocator allocator_{make_host_source(), Fill::poison};
};

TEST_F(TensorTest, ViewsShareMemory) {
  const Tensor t = counting({4, 2, 3});
  const Tensor rows = t.slice(1, 3), row = t.at(2), flat = t.reshape({24}), piece = t.window(5, {2, 2});
  EXPECT_EQ(rows.shape(), (Shape{2, 2, 3}));
  EXPECT_EQ(row.shape(), (Shape{2, 3}));
  EXPECT_EQ(rows.data<float>()[0], 6);
  EXPECT_EQ(row.data<float>()[0], 12);
  EXPECT_EQ(piece.span<float>()[3], 8);
  EXPECT_EQ(rows.slice(1, 2).data<float>(), row.data<float>()) << "a slice of a slice";
  flat.data<float>()[12] = -1;
  EXPECT_EQ(row.data<float>()[0], -1);
  EXPECT_TRUE(row.shares_memory_with(t));
  EXPECT_EQ(t.slice(4, 4).numel(), 0);
  EXPECT_EQ(counting({5}).at(3).shape(), Shape{});
}

TEST_F(TensorTest, OnlyTheLastHandleIsUnique) {
  Tensor t = counting({3});
  EXPECT_TRUE(t.unique());
  {
    const Tensor view = t.slice(0, 1);
    EXPECT_FALSE(t.unique());
    EXPECT_FALSE(view.unique());
  }
  EXPECT_TRUE(t.unique());
  const Tensor copied = t.clone();
  EXPECT_TRUE(t.unique() && copied.unique());
  EXPECT_FALSE(copied.shares_memory_with(t));
  EXPECT_TRUE(std::ranges::equal(copied.span<float>(), t.span<float>()));
}

TEST_F(TensorTest, MemoryOutlivesTheFirstHandle) {
  Tensor row;
  {
    const Tensor t = counting({2, 2});
    row = t.at(1);
  }
  EXPECT_EQ(row.data<float>()[1], 3);
}

TEST_F(TensorTest, RefusesWhatDoesNotFit) {
  const Tensor t = counting({4, 3});
  EXPECT_THROW(t.data<double>(), Error);
  EXPECT_THROW(Tensor().data<float>(), Error);
  EXPECT_THROW(t.reshape({13}), Error);
  EXPECT_THROW(t.slice(0, 5), Error);
  EXPECT_THROW(t.slice(3, 2), Error);
  EXPECT_THROW(t.slice(-1, 2), Error);
  EXPECT_THROW(t.at(4), Error);
  EXPECT_THROW(t.window(9, {4}), Error);
  EXPECT_THROW(t.window(-1, {1}), Error);
  EXPECT_THROW(counting({}).slice(0, 1), Error);
  EXPECT_THROW(copy(t, counting({3, 4})), Error);
  EXPECT_THROW(copy(t, Tensor::zeros(allocator_, {4, 3}, DType::f64)), Error);
  EXPECT_THROW(convert(t, Tensor::zeros(allocator_, {12}, DType::f64)), Error);
  EXPECT_THROW(convert(t, Tensor::zeros(allocator_, {4, 3}, DType::i32)), Error);
  EXPECT_THROW(Tensor::from<float>(allocator_, {2}, std::vector<float>{1}), Error);
}

TEST_F(TensorTest, ASizeBeyondMemoryIsAnErrorNotACrash) {
  EXPECT_THROW(Tensor::empty(allocator_, {int64_t{1} << 40, int64_t{1} << 40}, DType::f32), Error);
  EXPECT_THROW(Tensor::empty(allocator_, {std::numeric_limits<int64_t>::max()}, DType::f32), Error);
  EXPECT_THROW(Tensor::empty(allocator_, {std::numeric_limits<int64_t>::max()}, DType::u8), Error);
  EXPECT_THROW(Tensor::empty(allocator_, {int64_t{1} << 46}, DType::u8), Error) << "64 TiB that the system would promise";
}

TEST_F(TensorTest, EmptyTensorsWork) {
  const Tensor t = Tensor::zeros(allocator_, {3, 0}, DType::f32);
  EXPECT_EQ(t.numel(), 0);
  EXPECT_EQ(t.clone().shape(), (Shape{3, 0}));
  EXPECT_EQ(t.slice(1, 2).shape(), (Shape{1, 0}));
  EXPECT_EQ(Tensor::zeros(allocator_, {0, 3}, DType::f32).slice(0, 0).numel(), 0);
}

TEST(Bf16, EveryPatternSurvivesTheWayThroughFloat) {
  for (uint32_t pattern = 0; pattern < 65536; ++pattern) {
    bf16 stored;
    stored.bits = static_cast<uint16_t>(pattern);
    const auto wide = static_cast<float>(stored);
    const bf16 back(wide);
    if (std::isnan(wide)) {
      ASSERT_TRUE(std::isnan(static_cast<float>(back))) << pattern;
      ASSERT_EQ(std::signbit(wide), (pattern & 0x8000u) != 0);
    } else {
      ASSERT_EQ(back.bits, pattern);
    }
  }
}

/// The nearest bf16, by distances computed exactly in double; the even one of two that are equally near. Above the largest finite
/// number the next step counts as 2^128, which is where infinity begins.
uint16_t nearest_bf16(float value) {
  const auto low = static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16);  // toward zero
  const auto high = static_cast<uint16_t>(low + 1);
  const auto magnitude = [](uint16_t pattern) {
    if ((pattern & 0x7fffu) == 0x7f80u) return std::ldexp(1.0, 128);
    return std::abs(static_cast<double>(std::bit_cast<float>(uint32_t{pattern} << 16)));
  };
  const double x = std::abs(static_cast<double>(value)), below = x - magnitude(low), above = magnitude(high) - x;
  if (below != above) return below < above ? low : high;
  return low % 2 == 0 ? low : high;
}

TEST(Bf16, RoundsToNearestEven) {
  for (uint32_t pattern = 0; pattern < 65536; ++pattern) {
    if ((pattern & 0x7f80u) == 0x7f80u) continue;                                // infinity and NaN
    for (const uint32_t rest : {0x0001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {  // around the middle, where it matters
      const auto value = std::bit_cast<float>(pattern << 16 | rest);
      ASSERT_EQ(bf16(value).bits, nearest_bf16(value)) << pattern << " " << rest;
    }
  }
  for (uint64_t i = 0; i < 1'000'000; ++i) {
    const auto value = std::bit_cast<float>(philox(RngKey{1}, i).x[0]);
    if (std::isnan(value)) {
      ASSERT_TRUE(std::isnan(static_cast<float>(bf16(value))));
    } else if (!std::isinf(value)) {
      ASSERT_EQ(bf16(value).bits, nearest_bf16(value)) << value;
    }
  }
}

TEST(Bf16, ANaNWhoseMarkIsInTheLowHalfStaysOne) { EXPECT_TRUE(std::isnan(static_cast<float>(bf16(std::bit_cast<float>(0x7f800001u))))); }

TEST_F(TensorTest, ConvertKeepsWhatTheTargetCanHold) {
  const std::vector<double> values{0.1, -1e300, 1e-50, 3, INFINITY, -0.0};
  const Tensor wide = Tensor::from<double>(allocator_, {6}, values);
  const Tensor narrow = Tensor::empty(allocator_, {6}, DType::f32), half = Tensor::empty(allocator_, {6}, DType::bf16);
  const Tensor same = Tensor::empty(allocator_, {6}, DType::f64);
  convert(wide, narrow);
  convert(wide, same);
  convert(narrow, half);
  for (size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(same.span<double>()[i], values[i]);
    EXPECT_EQ(narrow.span<float>()[i], static_cast<float>(values[i]));
    EXPECT_EQ(half.span<bf16>()[i].bits, bf16(static_cast<float>(values[i])).bits);
  }
}

}  // namespace
}  // namespace ermoe::testing
