// Sums and maxima of parts: in the order of the parts, bf16 rounded once, NaN kept.
#include "core/reduce_parts.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace ermoe::testing {
namespace {

template <typename T>
std::vector<T> reduced(ReduceOp op, const std::vector<std::vector<T>>& parts) {
  std::vector<const std::byte*> pointers;
  for (const auto& part : parts) pointers.push_back(reinterpret_cast<const std::byte*>(part.data()));
  std::vector<T> out(parts[0].size());
  reduce_parts(DTypeOf<T>::value, op, pointers, reinterpret_cast<std::byte*>(out.data()), static_cast<int64_t>(out.size()));
  return out;
}

TEST(ReduceParts, TheOrderIsThatOfTheParts) {
  const float big = 1e8f;
  EXPECT_EQ(reduced<float>(ReduceOp::sum, {{big}, {-big}, {1}})[0], 1);
  EXPECT_EQ(reduced<float>(ReduceOp::sum, {{1}, {big}, {-big}})[0], 0);
}

TEST(ReduceParts, LongOnesEqualPlainSums) {
  std::vector<std::vector<double>> parts(3, std::vector<double>(200'003));
  for (size_t p = 0; p < parts.size(); ++p) {
    for (size_t i = 0; i < parts[p].size(); ++i) parts[p][i] = std::sin(static_cast<double>(i * 3 + p));
  }
  const std::vector<double> sum = reduced<double>(ReduceOp::sum, parts);
  for (size_t i = 0; i < sum.size(); ++i) ASSERT_EQ(sum[i], parts[0][i] + parts[1][i] + parts[2][i]);
}

TEST(ReduceParts, Bf16IsRoundedOnce) {
  const bf16 one(1.0f), small(0.00390625f);  // half of bf16's step at 1: alone it is lost to rounding
  EXPECT_EQ(static_cast<float>(reduced<bf16>(ReduceOp::sum, {{one}, {small}, {small}})[0]), 1.0078125f);
}

TEST(ReduceParts, IntegersWrapAround) {
  EXPECT_EQ(reduced<uint8_t>(ReduceOp::sum, {{200}, {100}})[0], 44);
  EXPECT_EQ(reduced<int32_t>(ReduceOp::sum, {{std::numeric_limits<int32_t>::max()}, {1}})[0], std::numeric_limits<int32_t>::min());
  EXPECT_EQ(reduced<int64_t>(ReduceOp::max, {{-5}, {-7}, {-6}})[0], -5);
}

TEST(ReduceParts, ANaNStaysInTheMaximum) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  EXPECT_TRUE(std::isnan(reduced<float>(ReduceOp::max, {{nan}, {inf}})[0]));
  EXPECT_TRUE(std::isnan(reduced<float>(ReduceOp::max, {{inf}, {nan}})[0]));
  EXPECT_EQ(reduced<float>(ReduceOp::max, {{-inf}, {-1}})[0], -1);
}

}  // namespace
}  // namespace ermoe::testing
