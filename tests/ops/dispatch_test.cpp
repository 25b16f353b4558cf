#include "ops/dispatch.h"

#include "tests/ops/op_case.h"
#include "tests/ops/routing_fixture.h"

namespace ermoe::testing {
namespace {

std::vector<OpCase> cases() {
  std::vector<OpCase> all;
  for (const Routing& r : routings())
    for (int64_t width : {5, 16})  // one by one, and in packs
      all.push_back({.name = r.name + "_" + std::to_string(width),
                     .inputs = {{.shape = {r.tokens, width}}},
                     .run = [r](const ExecContext& ctx, Vars x) { return dispatch(ctx, x[0], plan_of(ctx, r)); }});
  const Routing wide{"wide", 61, 2, 8, [](int64_t n, int64_t k) { return static_cast<int32_t>((n * 5 + k * 3) % 8); }};
  all.push_back({.name = wide.name, .inputs = {{.shape = {wide.tokens, 392}}}, .run = [wide](const ExecContext& ctx, Vars x) {
                   return dispatch(ctx, x[0], plan_of(ctx, wide));
                 }});
  for (int64_t width : {5, 16})
    all.push_back({.name = "tight_" + std::to_string(width), .inputs = {{.shape = {29, width}}}, .run = [](const ExecContext& ctx, Vars x) {
                     return dispatch(ctx, x[0], tight_plan_of(ctx, sparse_routing()));
                   }});
  return all;
}

OP_CASES_OF(DispatchOp, cases());

TEST(Dispatch, RowsAreTheirTokens) {
  for (const Routing& r : routings()) {
    TestBench bench;
    const RoutingPlan plan = plan_of(bench.ctx, r);
    const Tensor x = random_input(bench.ctx, {{r.tokens, 5}}, DType::f32, RngKey{1});
    const Tensor y = dispatch(bench.ctx, Variable(x), plan).value;
    for (int64_t i = 0; i < plan.rows(); ++i)
      for (int64_t d = 0; d < 5; ++d) {
        const int32_t n = plan.row_token.data<int32_t>()[i];
        EXPECT_EQ(y.data<float>()[i * 5 + d], n < 0 ? 0.0f : x.data<float>()[n * 5 + d]) << r.name << " row " << i;
      }
  }
}

}  // namespace
}  // namespace ermoe::testing
