// Philox against its authors' known answers (Random123's kat_vectors), splitmix64's first outputs, and the moments of what is drawn.
#include "core/rng.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <set>
#include <vector>

namespace ermoe::testing {
namespace {

using Words = std::array<uint32_t, 4>;

Words words(const Random4& r) { return {r.x[0], r.x[1], r.x[2], r.x[3]}; }
RngKey key_of(uint32_t k0, uint32_t k1) { return {uint64_t{k1} << 32 | k0}; }

TEST(Rng, PhiloxKnownAnswers) {
  const uint32_t ones = 0xffffffffu;
  EXPECT_EQ(words(philox(key_of(0, 0), Random4{{0, 0, 0, 0}})), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(words(philox(key_of(ones, ones), Random4{{ones, ones, ones, ones}})), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(words(philox(key_of(0xa4093822, 0x299f31d0), Random4{{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}})),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Rng, AnIndexIsTheLowHalfOfTheCounter) {
  EXPECT_EQ(words(philox(key_of(1, 2), uint64_t{7} << 32 | 5)), words(philox(key_of(1, 2), Random4{{5, 7, 0, 0}})));
}

TEST(Rng, FoldIsSplitmix64) {
  // The generator's first three outputs from seed 0.
  EXPECT_EQ(RngKey{0}.fold(0).value, 0xe220a8397b1dcdafull);
  EXPECT_EQ(RngKey{0}.fold(1).value, 0x6e789e6aa1b965f4ull);
  EXPECT_EQ(RngKey{0}.fold(2).value, 0x06c45d188009454full);
}

TEST(Rng, FoldedStreamsDiffer) {
  std::set<uint64_t> seen;
  for (uint64_t a = 0; a < 100; ++a)
    for (uint64_t b = 0; b < 100; ++b) seen.insert(RngKey{1}.fold(a).fold(b).value);
  EXPECT_EQ(seen.size(), 10'000u);
}

/// Mean of f(x) over the numbers, minus `expected`, in standard errors taken from the numbers themselves.
template <typename Fn>
double deviations(const std::vector<double>& x, double expected, Fn&& f) {
  double sum = 0, square = 0;
  for (const double v : x) {
    sum += f(v);
    square += f(v) * f(v);
  }
  const double n = static_cast<double>(x.size()), mean = sum / n;
  return (mean - expected) / std::sqrt((square / n - mean * mean) / n);
}

TEST(Rng, UniformHasItsMoments) {
  std::vector<double> x(1 << 20);
  for (size_t i = 0; i < x.size(); ++i) x[i] = uniform(RngKey{3}, i);
  for (const double v : x) ASSERT_TRUE(v >= 0 && v < 1);
  for (int power = 1; power <= 4; ++power)
    EXPECT_LT(std::abs(deviations(x, 1.0 / (power + 1), [&](double v) { return std::pow(v, power); })), 4) << power;
  for (int bin = 0; bin < 16; ++bin)
    EXPECT_LT(std::abs(deviations(x, 1.0 / 16, [&](double v) { return static_cast<int>(v * 16) == bin ? 1.0 : 0.0; })), 4) << bin;
  EXPECT_EQ(uniform(0xffffffffu), 1 - 0x1p-24f);
  EXPECT_EQ(uniform(0u), 0.0f);
}

TEST(Rng, NormalHasItsMoments) {
  std::vector<double> x(1 << 20), product(1 << 20);
  for (size_t i = 0; i < x.size(); ++i) x[i] = normal(RngKey{4}, i);
  for (size_t i = 0; i < x.size(); ++i) product[i] = x[i] * x[(i + 1) % x.size()];
  const std::array<double, 6> moments{0, 1, 0, 3, 0, 15};
  for (int power = 1; power <= 6; ++power)
    EXPECT_LT(std::abs(deviations(x, moments[static_cast<size_t>(power - 1)], [&](double v) { return std::pow(v, power); })), 4) << power;
  for (const double t : {-2.0, -1.0, -0.3, 0.3, 1.0, 2.0})
    EXPECT_LT(std::abs(deviations(x, 0.5 * std::erfc(-t / std::sqrt(2.0)), [&](double v) { return v < t ? 1.0 : 0.0; })), 4) << t;
  EXPECT_LT(std::abs(deviations(product, 0, [](double v) { return v; })), 4) << "neighbours depend on each other";
}

TEST(Rng, IntegersCoverTheirRangeEvenly) {
  const uint64_t n = 7;
  std::vector<double> x(1 << 18);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<double>(uniform_int(RngKey{5}, i, n));
  for (const double v : x) ASSERT_LT(v, static_cast<double>(n));
  for (uint64_t k = 0; k < n; ++k)
    EXPECT_LT(std::abs(deviations(x, 1.0 / 7, [&](double v) { return v == static_cast<double>(k) ? 1.0 : 0.0; })), 4) << k;
}

}  // namespace
}  // namespace ermoe::testing
