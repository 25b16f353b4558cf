#include "ops/grouped_mlp.h"

#include "autograd/memory/parameter_arena.h"
#include "ops/gelu.h"
#include "ops/grouped_linear.h"
#include "tests/ops/kept_memory.h"
#include "tests/ops/routing_fixture.h"

#include <optional>

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

#if defined(ERMOE_WITH_CUDA)
/// A layer whose matrices are made of factors elsewhere, as parameters of a model that computes in bf16.
struct Layer {
  Layer(const ExecContext& ctx, const OpCase& op, GradWrites writes) {
    std::vector<Parameter*> all;
    for (size_t i = 0; i < 4; ++i) {
      Parameter& p = parameters[i];
      p.shape = op.inputs[i + 1].shape;
      const bool matrix = p.shape.rank() == 3;
      p.role = matrix ? Parameter::Role::derived : Parameter::Role::direct;
      p.narrow_grad = matrix;
      all.push_back(&p);
    }
    arena.emplace(*ctx.allocator, DType::f32, DType::bf16, all, writes);
    for (Parameter* p : all) p->compute = random_input(ctx, {p->shape}, DType::bf16, RngKey{3}.fold(static_cast<uint64_t>(p - all[0])));
    arena->begin_gradients();
  }
  Parameter parameters[4];  // w1, b1, w2, b2
  std::optional<ParameterArena> arena;
};

/// Of matrices and biases, in the order w1, b1, w2, b2, and in the dtypes that they are written in.
std::vector<Tensor> parameter_gradients(GpuBench& bench, const OpCase& op, GradWrites writes) {
  Layer layer(bench.ctx, op, writes);
  Tape tape;
  const ExecContext ctx = bench.ctx.with_tape(&tape);
  std::vector<Variable> inputs = {tape.leaf(random_input(ctx, op.inputs[0], DType::bf16, RngKey{1}))};
  for (Parameter& p : layer.parameters) inputs.emplace_back(p);
  const Variable y = op.run(ctx, inputs);
  tape.backward(ctx, y, random_input(ctx, {y.shape()}, DType::bf16, RngKey{2}));
  std::vector<Tensor> gradients;
  for (const Parameter& p : layer.parameters) gradients.push_back(p.grad);
  return gradients;
}

void expect_narrow_gradients_are_rounded_ones(const OpCase& op) {
  SCOPED_TRACE(op.name);
  GpuBench once, many;
  const std::vector<Tensor> narrow = parameter_gradients(once, op, GradWrites::once),
                            wide = parameter_gradients(many, op, GradWrites::many);
  for (size_t i = 0; i < 4; ++i) {
    const bool matrix = i % 2 == 0;
    EXPECT_EQ(narrow[i].dtype(), matrix ? DType::bf16 : DType::f32);
    EXPECT_EQ(wide[i].dtype(), DType::f32);
    EXPECT_EQ(to_doubles(narrow[i]), matrix ? bf16_values(wide[i]) : to_doubles(wide[i])) << "gradient " << i;
  }
}

TEST(GroupedMlp, NarrowGradientsAreTheFloatOnesRoundedOnTheGpu) {
  for (const Routing& r : routings())
    for (const int64_t width : small_sizes() ? std::vector<int64_t>{5, 8} : std::vector<int64_t>{5, 8, 136})
      ERMOE_NEEDS_GPU(expect_narrow_gradients_are_rounded_ones(mlp_case(r, r.name, width, 3 * width, width)));
}
#endif

TEST(GroupedMlp, KeepsOneOfItsTwoWidestTensors) {
  const Routing r{"even", 512, 2, 4, [](int64_t n, int64_t k) { return static_cast<int32_t>((n + k) % 4); }};
  expect_one_kept_and_two_at_the_peak(mlp_case(r, "wide", 8, 1024, 8), 4.0 * 1024 * 1024);
}

}  // namespace
}  // namespace ermoe::testing
