#include "ops/routing_plan.h"

#include "tests/bench.h"
#include "tests/ops/routing_fixture.h"

#include <gtest/gtest.h>

#include <set>

namespace ermoe::testing {
namespace {

class RoutingPlanOf : public ::testing::TestWithParam<Routing> {};

TEST_P(RoutingPlanOf, RowsAreTheFilledSlotsSortedByExpert) {
  TestBench bench;
  const Routing& r = GetParam();
  const RoutingPlan plan = plan_of(bench.ctx, r);
  const auto slots = plan.row_slot.span<int32_t>(), tokens = plan.row_token.span<int32_t>();
  const auto offsets = plan.offsets.span<int32_t>();
  ASSERT_EQ(offsets[0], 0);
  for (int64_t e = 0; e < r.experts; ++e) {
    const auto first = static_cast<size_t>(offsets[static_cast<size_t>(e)]),
               last = static_cast<size_t>(offsets[static_cast<size_t>(e) + 1]);
    std::vector<int32_t> expected;
    for (int64_t n = 0; n < r.tokens; ++n)
      for (int64_t k = 0; k < r.slots; ++k)
        if (r.expert(n, k) == e) expected.push_back(static_cast<int32_t>(n * r.slots + k));
    EXPECT_EQ(std::vector<int32_t>(slots.begin() + static_cast<int64_t>(first), slots.begin() + static_cast<int64_t>(last)), expected)
        << "expert " << e;
    EXPECT_EQ(plan.counts.data<int32_t>()[e], static_cast<int32_t>(expected.size()));
    for (size_t i = first; i < last; ++i) EXPECT_EQ(tokens[i], slots[i] / r.slots);
  }
  for (size_t i = static_cast<size_t>(offsets[static_cast<size_t>(r.experts)]); i < slots.size(); ++i) {
    EXPECT_EQ(slots[i], -1);
    EXPECT_EQ(tokens[i], -1);
  }
}

TEST_P(RoutingPlanOf, SlotRowInvertsRowSlot) {
  TestBench bench;
  const Routing& r = GetParam();
  const RoutingPlan plan = plan_of(bench.ctx, r);
  const auto rows = plan.slot_row.span<int32_t>(), slots = plan.row_slot.span<int32_t>();
  std::set<int32_t> seen;
  for (size_t slot = 0; slot < rows.size(); ++slot) {
    const bool missing = plan.expert_ids.data<int32_t>()[slot] < 0;
    ASSERT_EQ(rows[slot] < 0, missing) << slot;
    if (missing) continue;
    EXPECT_EQ(slots[static_cast<size_t>(rows[slot])], static_cast<int32_t>(slot));
    EXPECT_TRUE(seen.insert(rows[slot]).second) << "two slots share row " << rows[slot];
  }
}

INSTANTIATE_TEST_SUITE_P(Routing, RoutingPlanOf, ::testing::ValuesIn(routings()), [](const auto& routing) { return routing.param.name; });

TEST(RoutingPlan, RefusesAnExpertThatDoesNotExist) {
  TestBench bench;
  const std::vector<int32_t> beyond = {0, 3}, below = {-2, 1};
  EXPECT_THROW(make_plan(bench.ctx, Tensor::from<int32_t>(bench.allocator, {2, 1}, beyond), 3), Error);
  EXPECT_THROW(make_plan(bench.ctx, Tensor::from<int32_t>(bench.allocator, {1, 2}, below), 3), Error);
  EXPECT_THROW(make_plan(bench.ctx, bench.ctx.empty({2, 1}, DType::f32), 3), Error);
}

}  // namespace
}  // namespace ermoe::testing
