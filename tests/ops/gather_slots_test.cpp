#include "ops/gather_slots.h"

#include "tests/ops/op_case.h"
#include "tests/ops/routing_fixture.h"

namespace ermoe::testing {
namespace {

std::vector<OpCase> cases() {
  std::vector<OpCase> all;
  for (const Routing& r : routings())
    all.push_back({.name = r.name,
                   .inputs = {{.shape = {r.tokens, r.experts}, .precision = OpInput::Precision::master}},
                   .run = [r](const ExecContext& ctx, Vars x) { return gather_slots(ctx, x[0], ids_of(ctx, r)); }});
  return all;
}

OP_CASES_OF(GatherSlotsOp, cases());

TEST(GatherSlots, PicksTheChosenAndZeroElsewhere) {
  TestBench bench;
  const std::vector<float> p = {0.5f, 0.25f, 0.125f, 1, 2, 3};
  const std::vector<int32_t> chosen = {2, -1, 3, 0};  // 3 is a free expert: it has no number
  const Tensor w = gather_slots(bench.ctx, Variable(Tensor::from<float>(bench.allocator, {2, 3}, p)),
                                Tensor::from<int32_t>(bench.allocator, {2, 2}, chosen))
                       .value;
  const std::vector<float> expected = {0.125f, 0, 0, 1};
  EXPECT_EQ(std::vector<float>(w.span<float>().begin(), w.span<float>().end()), expected);
}

}  // namespace
}  // namespace ermoe::testing
