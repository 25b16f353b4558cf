#include "ops/grouped_linear.h"

#include "ops/combine.h"
#include "ops/dispatch.h"
#include "ops/gelu.h"
#include "tests/ops/op_case.h"
#include "tests/ops/routing_fixture.h"
#include "tests/ops/thread_case.h"

namespace ermoe::testing {
namespace {

std::vector<OpCase> layer_cases() {
  std::vector<OpCase> all;
  for (const Routing& r : routings()) {
    const std::vector<OpInput> inputs = {{.shape = {r.tokens * r.slots, 5}}, {.shape = {r.experts, 7, 5}}, {.shape = {r.experts, 7}}};
    all.push_back({.name = r.name, .inputs = inputs, .run = [r](const ExecContext& ctx, Vars x) {
                     return grouped_linear(ctx, x[0], x[1], x[2], plan_of(ctx, r));
                   }});
    all.push_back({.name = r.name + "_no_bias", .inputs = {inputs[0], inputs[1]}, .run = [r](const ExecContext& ctx, Vars x) {
                     return grouped_linear(ctx, x[0], x[1], {}, plan_of(ctx, r));
                   }});
  }
  return all;
}

OP_CASES_OF(GroupedLinearOp, layer_cases());

/// dispatch → two linear layers with GELU → combine, as a MoE layer runs them.
Variable expert_path(const ExecContext& ctx, Vars x, const RoutingPlan& plan) {
  const Variable hidden = gelu(ctx, grouped_linear(ctx, dispatch(ctx, x[0], plan), x[2], x[3], plan));
  return combine(ctx, grouped_linear(ctx, hidden, x[4], x[5], plan), x[1], plan);
}

std::vector<OpCase> path_cases() {
  std::vector<OpCase> all;
  for (const Routing& r : routings())
    all.push_back({.name = r.name,
                   .inputs = {{.shape = {r.tokens, 5}},
                              {.shape = {r.tokens, r.slots}, .precision = OpInput::Precision::master},
                              {.shape = {r.experts, 6, 5}},
                              {.shape = {r.experts, 6}},
                              {.shape = {r.experts, 5, 6}},
                              {.shape = {r.experts, 5}}},
                   .run = [r](const ExecContext& ctx, Vars x) { return expert_path(ctx, x, plan_of(ctx, r)); }});
  return all;
}

OP_CASES_OF(ExpertPath, path_cases());

TEST(GroupedLinear, EqualsOneProductARow) {
  for (const Routing& r : routings()) {
    TestBench bench;
    const RoutingPlan plan = plan_of(bench.ctx, r);
    const Tensor x = random_input(bench.ctx, {{plan.rows(), 5}}, DType::f64, RngKey{1});
    const Tensor w = random_input(bench.ctx, {{r.experts, 3, 5}}, DType::f64, RngKey{2});
    const Tensor b = random_input(bench.ctx, {{r.experts, 3}}, DType::f64, RngKey{3});
    const Tensor y = grouped_linear(bench.ctx, Variable(x), Variable(w), Variable(b), plan).value;
    for (int64_t i = 0; i < plan.rows(); ++i)
      for (int64_t o = 0; o < 3; ++o) {
        const int32_t slot = plan.row_slot.data<int32_t>()[i];
        double expected = 0;
        if (slot >= 0) {
          const int32_t e = plan.expert_ids.data<int32_t>()[slot];
          expected = b.data<double>()[e * 3 + o];
          for (int64_t d = 0; d < 5; ++d) expected += w.data<double>()[(e * 3 + o) * 5 + d] * x.data<double>()[i * 5 + d];
        }
        EXPECT_NEAR(y.data<double>()[i * 3 + o], expected, 1e-13) << r.name << " row " << i;
      }
  }
}

TEST(GroupedLinear, NeverReadsRowsBeyondTheFilled) {
  TestBench bench;
  const Routing missing = routings()[1];
  const RoutingPlan plan = plan_of(bench.ctx, missing);
  Tensor x = random_input(bench.ctx, {{plan.rows(), 4}}, DType::f32, RngKey{1});
  const int64_t filled = plan.offsets.data<int32_t>()[missing.experts];
  ASSERT_LT(filled, plan.rows());
  for (int64_t i = filled * 4; i < x.numel(); ++i) x.data<float>()[i] = NAN;
  Tape tape;
  const ExecContext ctx = bench.ctx.with_tape(&tape);
  const Variable in = tape.leaf(x), w = tape.leaf(random_input(ctx, {{missing.experts, 3, 4}}, DType::f32, RngKey{2}));
  const Variable b = tape.leaf(random_input(ctx, {{missing.experts, 3}}, DType::f32, RngKey{3}));
  const Variable y = grouped_linear(ctx, in, w, b, plan);
  Tensor dy = random_input(ctx, {y.shape()}, DType::f32, RngKey{4});
  for (int64_t i = filled * 3; i < dy.numel(); ++i) dy.data<float>()[i] = NAN;
  tape.backward(ctx, y, dy);
  for (const Tensor& t : {y.value, tape.grad(in), tape.grad(w), tape.grad(b)})
    for (float v : t.span<float>()) ASSERT_FALSE(std::isnan(v));
}

TEST(ExpertPath, BitsDoNotDependOnTheNumberOfThreads) {
  const Routing r{"", 501, 2, 5, [](int64_t n, int64_t k) { return static_cast<int32_t>((n * n + k) % 5); }};
  expect_same_bits_for_any_threads({.name = "",
                                    .inputs = {{.shape = {501, 67}},
                                               {.shape = {501, 2}},
                                               {.shape = {5, 131, 67}},
                                               {.shape = {5, 131}},
                                               {.shape = {5, 67, 131}},
                                               {.shape = {5, 67}}},
                                    .run = [r](const ExecContext& ctx, Vars x) { return expert_path(ctx, x, plan_of(ctx, r)); }});
}

}  // namespace
}  // namespace ermoe::testing
