// Scratch memory: a stack of loans that grows when it was too small, and never hands one byte out twice.
#include "core/workspace.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace ermoe::testing {
namespace {

TEST(Workspace, LoansEndInReverseOrder) {
  CachingAllocator allocator(make_host_source());
  Workspace workspace(allocator);
  const auto a = workspace.borrow<float>(100);
  float* first = nullptr;
  {
    const auto b = workspace.borrow<float>(10);
    first = b.data();
    EXPECT_GE(b.data(), a.data() + 100);
  }
  const auto c = workspace.borrow<double>(5);
  EXPECT_EQ(static_cast<void*>(c.data()), static_cast<void*>(first)) << "the place of a finished loan is used again";
  EXPECT_EQ(reinterpret_cast<uintptr_t>(c.data()) % 64, 0u);
}

TEST(Workspace, GrowsOnceThenFits) {
  CachingAllocator allocator(make_host_source());
  Workspace workspace(allocator);
  const auto step = [&] {
    const auto a = workspace.borrow<float>(10'048);  // whole units of 256 bytes
    const auto b = workspace.borrow<float>(50'000);  // does not fit the first block
    const auto c = workspace.borrow<float>(1'000);
    std::ranges::fill(a.span(), 1.0f);
    std::ranges::fill(b.span(), 2.0f);
    std::ranges::fill(c.span(), 3.0f);
    EXPECT_TRUE(std::ranges::all_of(a.span(), [](float v) { return v == 1.0f; })) << "loans overlap";
    EXPECT_TRUE(std::ranges::all_of(b.span(), [](float v) { return v == 2.0f; })) << "loans overlap";
    return b.data() == a.data() + a.span().size();
  };
  EXPECT_FALSE(step()) << "the first round should overflow, or this test shows nothing";
  EXPECT_GE(workspace.high_water(), 61'048 * sizeof(float));
  EXPECT_TRUE(step()) << "the second round should come from one block";
  const int64_t calls = allocator.stats().source_calls;
  const size_t high_water = workspace.high_water();
  for (int i = 0; i < 10; ++i) step();
  EXPECT_EQ(allocator.stats().source_calls, calls);
  EXPECT_EQ(workspace.high_water(), high_water);
}

TEST(Workspace, ALoanBesideAnOverflowStaysInTheBlock) {
  CachingAllocator allocator(make_host_source());
  Workspace workspace(allocator);
  const auto a = workspace.borrow<float>(1000);
  { const auto large = workspace.borrow<float>(1'000'000); }
  const auto b = workspace.borrow<float>(1000);
  EXPECT_GE(b.data(), a.data() + 1000);
  EXPECT_LT(b.data(), a.data() + 2000);
}

TEST(Workspace, PoisonsEveryLoan) {
  CachingAllocator allocator(make_host_source(), Fill::poison);
  Workspace workspace(allocator);
  for (int round = 0; round < 2; ++round) {
    const auto a = workspace.borrow<float>(100);
    const auto b = workspace.borrow<float>(100'000);
    EXPECT_TRUE(std::isnan(a[0]) && std::isnan(a[99]) && std::isnan(b[0]) && std::isnan(b[99'999]));
    std::ranges::fill(a.span(), 0.0f);
    std::ranges::fill(b.span(), 0.0f);
  }
}

TEST(Workspace, RefusesImpossibleLoansAndStaysUsable) {
  CachingAllocator allocator(make_host_source());
  Workspace workspace(allocator);
  EXPECT_EQ(workspace.borrow<float>(0).span().size(), 0u);
  const auto a = workspace.borrow<float>(64);
  EXPECT_THROW(workspace.borrow<float>(-1), Error);
  EXPECT_THROW(workspace.borrow<double>(INT64_MAX), Error);
  EXPECT_THROW(workspace.borrow<uint8_t>(INT64_MAX / 64), Error);  // as many bytes as no machine has
  const auto b = workspace.borrow<float>(16);
  EXPECT_EQ(b.data(), a.data() + 64) << "a refused loan took space";
}

}  // namespace
}  // namespace ermoe::testing
