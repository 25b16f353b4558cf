#include "ops/grouped_mlp.h"

#include "ops/gelu.h"
#include "ops/grouped_linear.h"
#include "tests/ops/kept_memory.h"
#include "tests/ops/routing_fixture.h"

namespace ermoe::testing {
namespace {

OpCase mlp_case(const Routing& r, const std::string& name, int64_t in, int64_t hidden, int64_t out) {
  return {.name = name,
          .inputs = {{.shape = {r.tokens * r.slots, in}},
                     {.shape = {r.experts, hidden, in}},
                     {.shape = {r.experts, hidden}},
                     {.shape = {r.experts, out, hidden}},
                     {.shape = {r.experts, out}}},
          .run = [r](const ExecContext& ctx, Vars x) {
            return grouped_mlp(ctx, x[0], {.w1 = x[1], .b1 = x[2], .w2 = x[3], .b2 = x[4]}, plan_of(ctx, r));
          }};
}

std::vector<OpCase> mlp_cases() {
  std::vector<OpCase> all;
  for (const Routing& r : routings()) {
    all.push_back(mlp_case(r, r.name, 5, 6, 5));
    all.push_back(mlp_case(r, r.name + "_aligned", 8, 24, 16));  // rows of 16 bytes, which matrix units want
  }
  const Routing ragged = routings()[0];
  OpCase no_bias{
      .name = "no_bias",
      .inputs = {{.shape = {ragged.tokens * ragged.slots, 5}}, {.shape = {ragged.experts, 6, 5}}, {.shape = {ragged.experts, 7, 6}}},
      .run = [ragged](const ExecContext& ctx, Vars x) {
        return grouped_mlp(ctx, x[0], {.w1 = x[1], .b1 = {}, .w2 = x[2], .b2 = {}}, plan_of(ctx, ragged));
      }};
  all.push_back(no_bias);
  return all;
}

OP_CASES_OF(GroupedMlpOp, mlp_cases());

TEST(GroupedMlp, EqualsTheOpsItIsMadeOf) {
  for (const Routing& r : routings()) {
    OpCase whole = mlp_case(r, r.name, 7, 12, 5), parts = whole;
    parts.run = [r](const ExecContext& ctx, Vars x) {
      const RoutingPlan plan = plan_of(ctx, r);
      return grouped_linear(ctx, gelu(ctx, grouped_linear(ctx, x[0], x[1], x[2], plan)), x[3], x[4], plan);
    };
    TestBench a, b;
    EXPECT_EQ(run_op(a, whole, DType::f64).tensors, run_op(b, parts, DType::f64).tensors) << r.name;
  }
}

TEST(GroupedMlp, KeepsOneOfItsTwoWidestTensors) {
  const Routing r{"even", 512, 2, 4, [](int64_t n, int64_t k) { return static_cast<int32_t>((n + k) % 4); }};
  expect_one_kept_and_two_at_the_peak(mlp_case(r, "wide", 8, 1024, 8), 4.0 * 1024 * 1024);
}

}  // namespace
}  // namespace ermoe::testing
