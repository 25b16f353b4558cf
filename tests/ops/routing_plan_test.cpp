#include "ops/routing_plan.h"

#include "tests/gpu_bench.h"
#include "tests/ops/expect_error.h"
#include "tests/ops/routing_fixture.h"

#include <gtest/gtest.h>

#include <algorithm>
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

TEST_P(RoutingPlanOf, WithNoMoreRowsThanAreFilledIsTheSameUpToThere) {
  TestBench bench;
  const Routing& r = GetParam();
  const RoutingPlan whole = plan_of(bench.ctx, r);
  const int64_t filled = whole.offsets.data<int32_t>()[r.experts];
  for (int64_t rows = filled; rows <= whole.rows(); ++rows) {
    const RoutingPlan plan = make_plan(bench.ctx, ids_of(bench.ctx, r), r.experts, rows);
    ASSERT_EQ(plan.rows(), rows);
    EXPECT_EQ(to_vector<int32_t>(plan.slot_row), to_vector<int32_t>(whole.slot_row));
    EXPECT_EQ(to_vector<int32_t>(plan.offsets), to_vector<int32_t>(whole.offsets));
    EXPECT_EQ(to_vector<int32_t>(plan.row_slot), to_vector<int32_t>(whole.row_slot.slice(0, rows)));
    EXPECT_EQ(to_vector<int32_t>(plan.row_token), to_vector<int32_t>(whole.row_token.slice(0, rows)));
  }
  if (filled > 0) expect_error([&] { make_plan(bench.ctx, ids_of(bench.ctx, r), r.experts, filled - 1); }, {"[make_plan]", "rows"});
}

TEST(IdsInTurn, GiveEachExpertAsManySlotsInARow) {
  TestBench bench;
  const std::vector<int32_t> pairs = {0, 0, 1, 1, 2, 2, 0, 0, 1, 1}, singles = {0, 1, 2, 0, 1, 2};
  EXPECT_EQ(to_vector<int32_t>(ids_in_turn(bench.ctx, {10, 1}, 3, 2)), pairs);
  EXPECT_EQ(to_vector<int32_t>(ids_in_turn(bench.ctx, {2, 3}, 3, 1)), singles);
  EXPECT_EQ(ids_in_turn(bench.ctx, {0, 3}, 3, 1).numel(), 0);
  expect_error([&] { ids_in_turn(bench.ctx, {2, 3}, 3, 0); }, {"[ids_in_turn]", "0"});
}

TEST(LimitCapacity, KeepsFirstChoicesOfAllTokensBeforeSecondOnes) {
  TestBench bench;
  const std::vector<int32_t> given = {0, 1, 1, 0, 0, 2, -1, 0};
  const Tensor ids = Tensor::from<int32_t>(bench.allocator, {4, 2}, given);
  limit_capacity(bench.ctx, ids, 3, 2);
  const std::vector<int32_t> kept = {0, 1, 1, -1, 0, 2, -1, -1};
  EXPECT_EQ(to_vector<int32_t>(ids), kept);
  limit_capacity(bench.ctx, ids, 3, 0);
  EXPECT_EQ(to_vector<int32_t>(ids), std::vector<int32_t>(8, -1));
  expect_error([&] { limit_capacity(bench.ctx, ids, 3, -1); }, {"[limit_capacity]", "-1"});
}

TEST(RotateExperts, MovesOnByOneAndLeavesMissingSlots) {
  TestBench bench;
  const std::vector<int32_t> given = {0, 2, -1, 1}, moved = {1, 0, -1, 2};
  EXPECT_EQ(to_vector<int32_t>(rotate_experts(bench.ctx, Tensor::from<int32_t>(bench.allocator, {2, 2}, given), 3)), moved);
}

#if defined(ERMOE_WITH_CUDA)

/// Random ids in [lowest, experts).
std::vector<int32_t> random_ids(int64_t tokens, int64_t slots, int64_t experts, int64_t lowest) {
  std::vector<int32_t> ids(static_cast<size_t>(tokens * slots));
  for (size_t i = 0; i < ids.size(); ++i)
    ids[i] = static_cast<int32_t>(lowest + static_cast<int64_t>(uniform_int(RngKey{71}, i, static_cast<uint64_t>(experts - lowest))));
  return ids;
}

void expect_same_plan(const RoutingPlan& got, const RoutingPlan& want) {
  for (auto member : {&RoutingPlan::counts, &RoutingPlan::offsets, &RoutingPlan::row_slot, &RoutingPlan::slot_row, &RoutingPlan::row_token})
    EXPECT_EQ(to_vector<int32_t>(got.*member), to_vector<int32_t>(want.*member));
}

/// Plan, capacity and rotation of the ids on both devices.
void expect_gpu_plans_as_cpu(int64_t tokens, int64_t slots, int64_t experts, const std::vector<int32_t>& ids) {
  TestBench cpu;
  GpuBench gpu;
  const Shape shape{tokens, slots};
  const Tensor on_cpu = Tensor::from<int32_t>(cpu.allocator, shape, ids), on_gpu = Tensor::from<int32_t>(gpu.allocator, shape, ids);
  expect_same_plan(make_plan(gpu.ctx, on_gpu, experts), make_plan(cpu.ctx, on_cpu, experts));
  EXPECT_EQ(to_vector<int32_t>(rotate_experts(gpu.ctx, on_gpu, experts)), to_vector<int32_t>(rotate_experts(cpu.ctx, on_cpu, experts)));
  const auto filled = static_cast<int64_t>(std::ranges::count_if(ids, [](int32_t id) { return id >= 0; }));
  expect_same_plan(make_plan(gpu.ctx, on_gpu, experts, filled), make_plan(cpu.ctx, on_cpu, experts, filled));
  for (const int64_t each : {1, 3})
    EXPECT_EQ(to_vector<int32_t>(ids_in_turn(gpu.ctx, shape, experts, each)),
              to_vector<int32_t>(ids_in_turn(cpu.ctx, shape, experts, each)));
  const int64_t capacity = tokens * slots / experts;
  limit_capacity(gpu.ctx, on_gpu, experts, capacity);
  limit_capacity(cpu.ctx, on_cpu, experts, capacity);
  EXPECT_EQ(to_vector<int32_t>(on_gpu), to_vector<int32_t>(on_cpu));
}

void expect_gpu_plans_fixtures() {
  for (const Routing& r : routings()) {
    SCOPED_TRACE(r.name);
    TestBench cpu;
    expect_gpu_plans_as_cpu(r.tokens, r.slots, r.experts, to_vector<int32_t>(ids_of(cpu.ctx, r)));
  }
}

void expect_gpu_plans_large() {
  struct Case {
    int64_t tokens, slots, experts, lowest;
  };
  for (const Case c : {Case{50432, 2, 8, 0}, {50432, 2, 9, -1}, {25001, 4, 256, -1}, {3001, 3, 600, -1}, {1024, 1, 1, 0}, {1023, 1, 2, -1}})
    expect_gpu_plans_as_cpu(c.tokens, c.slots, c.experts, random_ids(c.tokens, c.slots, c.experts, c.lowest));
}

/// The CPU throws on them.
void expect_gpu_drops_wild_ids() {
  TestBench cpu;
  GpuBench gpu;
  std::vector<int32_t> ids = random_ids(500, 2, 5, -1);
  ids[3] = 5;
  ids[700] = -7;
  const Tensor wild = Tensor::from<int32_t>(gpu.allocator, {500, 2}, ids);
  ids[3] = ids[700] = -1;
  expect_same_plan(make_plan(gpu.ctx, wild, 5), make_plan(cpu.ctx, Tensor::from<int32_t>(cpu.allocator, {500, 2}, ids), 5));
}

TEST(RoutingPlanOnGpu, IsTheCpus) { ERMOE_NEEDS_GPU(expect_gpu_plans_fixtures()); }
TEST(RoutingPlanOnGpu, IsTheCpusWhereThereAreManyBlocksAndTiles) { ERMOE_NEEDS_GPU(expect_gpu_plans_large()); }
TEST(RoutingPlanOnGpu, CountsAnIdThatDoesNotExistAsMissing) { ERMOE_NEEDS_GPU(expect_gpu_drops_wild_ids()); }

#endif

}  // namespace
}  // namespace ermoe::testing
