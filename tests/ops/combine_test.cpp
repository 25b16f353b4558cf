#include "ops/combine.h"

#include "ops/dispatch.h"
#include "tests/ops/op_case.h"
#include "tests/ops/routing_fixture.h"

namespace ermoe::testing {
namespace {

OpCase case_of(const Routing& r, int64_t width) {
  const OpInput weights{.shape = {r.tokens, r.slots}, .precision = OpInput::Precision::master};
  return {.name = r.name + "_" + std::to_string(width),
          .inputs = {{.shape = {r.tokens * r.slots, width}}, weights},
          .run = [r](const ExecContext& ctx, Vars x) { return combine(ctx, x[0], x[1], plan_of(ctx, r)); }};
}

std::vector<OpCase> cases() {
  std::vector<OpCase> all;
  for (const Routing& r : routings())
    for (int64_t width : {6, 16}) all.push_back(case_of(r, width));  // one by one, and in packs
  all.push_back(case_of({"wide", 61, 2, 8, [](int64_t n, int64_t k) { return static_cast<int32_t>((n * 5 + k * 3) % 8); }}, 392));
  all.push_back(case_of({"five_slots", 9, 5, 6, [](int64_t n, int64_t k) { return static_cast<int32_t>((n + k) % 6); }}, 40));
  const Routing sparse = sparse_routing();
  TestBench bench;
  const int64_t rows = tight_plan_of(bench.ctx, sparse).rows();
  for (int64_t width : {6, 16})
    all.push_back({.name = "tight_" + std::to_string(width),
                   .inputs = {{.shape = {rows, width}}, {.shape = {sparse.tokens, sparse.slots}, .precision = OpInput::Precision::master}},
                   .run = [sparse](const ExecContext& ctx, Vars x) { return combine(ctx, x[0], x[1], tight_plan_of(ctx, sparse)); }});
  return all;
}

OP_CASES_OF(CombineOp, cases());

TEST(Combine, UndoesDispatchWithWeightsThatAddToOne) {
  for (const Routing& r : routings()) {
    TestBench bench;
    const RoutingPlan plan = plan_of(bench.ctx, r);
    const Tensor x = random_input(bench.ctx, {{r.tokens, 6}}, DType::f64, RngKey{1});
    Tensor weights = bench.ctx.empty({r.tokens, r.slots}, DType::f64);
    std::vector<int> filled(static_cast<size_t>(r.tokens), 0);
    for (int64_t slot = 0; slot < plan.rows(); ++slot)
      filled[static_cast<size_t>(slot / r.slots)] += plan.slot_row.data<int32_t>()[slot] >= 0;
    for (int64_t slot = 0; slot < plan.rows(); ++slot)  // a missing slot's weight stays the poison it was
      if (plan.slot_row.data<int32_t>()[slot] >= 0) weights.data<double>()[slot] = 1.0 / filled[static_cast<size_t>(slot / r.slots)];
    const Tensor out = combine(bench.ctx, dispatch(bench.ctx, Variable(x), plan), Variable(weights), plan).value;
    for (int64_t i = 0; i < x.numel(); ++i)
      EXPECT_NEAR(out.data<double>()[i], filled[static_cast<size_t>(i / 6)] > 0 ? x.data<double>()[i] : 0.0, 1e-15) << r.name;
  }
}

}  // namespace
}  // namespace ermoe::testing
