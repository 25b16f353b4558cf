#include "ops/materialize.h"

#include "autograd/memory/parameter_arena.h"
#include "core/flat.h"
#include "tests/ops/bf16_output.h"
#include "tests/ops/expect_error.h"
#include "tests/ops/op_case.h"
#include "tests/ops/thread_case.h"

namespace ermoe::testing {
namespace {

Variable run(const ExecContext& ctx, Vars x) { return materialize(ctx, x[0], x[1], x[2]); }

constexpr auto master = OpInput::Precision::master;  // factors are f32 wherever W is bf16

std::vector<OpInput> factors(int64_t experts, int64_t m, int64_t n, int64_t r) {
  return {{.shape = {experts, m, r}, .precision = master},
          {.shape = {experts, r}, .precision = master},
          {.shape = {experts, n, r}, .precision = master}};
}

OP_CASES(MaterializeOp, {.name = "one", .inputs = factors(1, 1, 1, 1), .run = run},
         {.name = "square", .inputs = factors(3, 6, 6, 5), .run = run},
         {.name = "one_factor_twice",
          .inputs = {{.shape = {2, 5, 3}, .precision = master}, {.shape = {2, 3}, .precision = master}},
          .run = [](const ExecContext& ctx, Vars x) { return materialize(ctx, x[0], x[1], x[0]); }},
         {.name = "tall", .inputs = factors(3, 9, 5, 4), .run = run}, {.name = "wide", .inputs = factors(2, 4, 11, 3), .run = run},
         {.name = "large", .inputs = factors(4, 33, 65, 34), .run = run},
         {.name = "many_rows", .inputs = factors(2, 333, 24, 36), .run = run},
         {.name = "many_rows_of_both", .inputs = factors(2, 301, 203, 36), .run = run});

/// The op with gradients wanted of those inputs alone whose bit is set.
OpCase wanting(unsigned inputs, OpCase op) {
  op.run = [inputs, all = op.run](const ExecContext& ctx, Vars x) {
    std::vector<Variable> some;
    for (size_t i = 0; i < x.size(); ++i) some.push_back((inputs >> i & 1) != 0 ? x[i] : Variable(x[i].value));
    return all(ctx, some);
  };
  return op;
}

template <typename Bench>
void expect_gradients_do_not_depend_on_each_other(const OpCase& op) {
  Bench bench;
  const OpRun all = run_op(bench, op, DType::f32);
  for (unsigned inputs = 1; inputs < 7; ++inputs) {
    Bench fresh;
    const OpRun some = run_op(fresh, wanting(inputs, op), DType::f32);
    for (size_t i = 0; i < 3; ++i)
      EXPECT_EQ(some.tensors[i + 1], (inputs >> i & 1) != 0 ? all.tensors[i + 1] : std::vector<double>()) << inputs << ", input " << i;
  }
}

TEST(Materialize, GradientsDoNotDependOnWhichOthersAreWanted) {
  for (const auto& inputs : {factors(3, 9, 5, 4), factors(2, 4, 11, 3), factors(2, 33, 65, 34)})
    expect_gradients_do_not_depend_on_each_other<TestBench>({.name = "", .inputs = inputs, .run = run});
}

#if defined(ERMOE_WITH_CUDA)
enum class Twin { none, exact, doubled };

/// `x` in bf16, or twice that.
Tensor twin_of(const ExecContext& ctx, const Variable& x, Twin kind) {
  if (kind == Twin::none) return {};
  const Tensor wide = x.value.clone(), twin = ctx.empty(x.shape(), DType::bf16);
  if (kind == Twin::doubled) convert(x.value, wide, Accumulate::add);
  convert(wide, twin);
  return twin;
}

/// w in bf16 from factors in f32, with twins of these kinds.
OpCase narrow(const std::vector<OpInput>& inputs, Twin u = Twin::none, Twin v = Twin::none) {
  return {.name = "", .inputs = inputs, .run = [=](const ExecContext& ctx, Vars x) {
            const Tensor w = ctx.empty({x[0].shape()[0], x[0].shape()[1], x[2].shape()[1]}, DType::bf16);
            return materialize(ctx, x[0], x[1], x[2], w, {.u = twin_of(ctx, x[0], u), .v = twin_of(ctx, x[2], v)});
          }};
}

std::vector<double> doubled(std::vector<double> values) {
  for (double& v : values) v *= 2;
  return values;
}

TEST(Materialize, MakesBf16OnTheGpuFromFactorsInF32) {
  for (const auto& inputs : {factors(3, 96, 64, 48), factors(3, 64, 96, 48), factors(2, 37, 19, 11), factors(2, 19, 37, 11),
                             factors(2, 64, 64, 40), factors(8, 384, 96, 96), factors(2, 1536, 384, 384), factors(2, 384, 1536, 384)})
    ERMOE_NEEDS_GPU(expect_bf16_output_agrees(narrow(inputs), {.name = "", .inputs = inputs, .run = run}));
}

/// The same but for the order of sums: an address that is aligned otherwise may get another algorithm.
void expect_alike(const std::vector<double>& got, const std::vector<double>& want) { EXPECT_LE(dissimilarity(got, want), 1e-7); }

void expect_twins_change_nothing(const std::vector<OpInput>& inputs) {
  GpuBench without, with;
  const OpRun want = run_op(without, narrow(inputs), DType::f32), got = run_op(with, narrow(inputs, Twin::exact, Twin::exact), DType::f32);
  for (size_t i = 0; i < want.tensors.size(); ++i) expect_alike(got.tensors[i], want.tensors[i]);
}

TEST(Materialize, TwinsChangeNothingOnTheGpu) {
  for (const auto& inputs : {factors(3, 96, 64, 48), factors(3, 64, 96, 48), factors(2, 37, 19, 11), factors(2, 19, 37, 11),
                             factors(2, 64, 64, 40), factors(2, 384, 1536, 384)})
    ERMOE_NEEDS_GPU(expect_twins_change_nothing(inputs));
}

/// A twin that is twice its factor betrays what was read: w and what comes of the product with the factor itself are doubled, the
/// factor's own gradient is not.
void expect_larger_twin_is_read(const std::vector<OpInput>& inputs, Twin u, Twin v) {
  GpuBench one, other;
  const OpRun before = run_op(one, narrow(inputs), DType::f32), after = run_op(other, narrow(inputs, u, v), DType::f32);
  const size_t of_small = u == Twin::doubled ? 3 : 1, of_large = 4 - of_small;  // w, then the gradients of u, s and v
  for (const size_t twice : {size_t{0}, size_t{2}, of_small}) expect_alike(after.tensors[twice], doubled(before.tensors[twice]));
  expect_alike(after.tensors[of_large], before.tensors[of_large]);
}

TEST(Materialize, ReadsTheTwinOfTheLargerFactorOnTheGpu) {
  ERMOE_NEEDS_GPU(expect_larger_twin_is_read(factors(3, 96, 64, 48), Twin::doubled, Twin::none));
  ERMOE_NEEDS_GPU(expect_larger_twin_is_read(factors(2, 19, 37, 11), Twin::none, Twin::doubled));
}

/// Gradients of the factors for w's gradient in `dtype`, of the same numbers.
std::vector<double> gradients_for(const std::vector<OpInput>& inputs, DType dtype) {
  GpuBench bench;
  Tape tape;
  const ExecContext ctx = bench.ctx.with_tape(&tape);
  std::vector<Variable> leaves;
  for (size_t i = 0; i < 3; ++i) leaves.push_back(tape.leaf(random_input(ctx, inputs[i], DType::bf16, RngKey{1}.fold(i))));
  const Variable w = narrow(inputs, Twin::exact, Twin::exact).run(ctx, leaves);
  const Tensor rounded = random_input(ctx, {w.shape()}, DType::bf16, RngKey{2}), dw = ctx.empty(w.shape(), dtype);
  convert(rounded, dw);
  tape.backward(ctx, w, dw);
  std::vector<double> all;
  for (const Variable& leaf : leaves) {
    const std::vector<double> gradient = to_doubles(tape.grad(leaf));
    all.insert(all.end(), gradient.begin(), gradient.end());
  }
  return all;
}

TEST(Materialize, TakesItsGradientRoundedOrNotOnTheGpu) {
  for (const auto& inputs : {factors(3, 96, 64, 48), factors(2, 19, 37, 11), factors(2, 384, 1536, 384)})
    ERMOE_NEEDS_GPU(expect_alike(gradients_for(inputs, DType::bf16), gradients_for(inputs, DType::f32)));
}

void expect_narrow_adds(const OpCase& op) {
  GpuBench bench;
  const OpRun once = run_op(bench, op, DType::f32, 1), twice = run_op(bench, op, DType::f32, 2);
  for (size_t i = 1; i < once.tensors.size(); ++i)
    EXPECT_LE(normalised_error(twice.tensors[i], doubled(once.tensors[i])), 1e-12) << "input " << i - 1;
}

TEST(Materialize, GradientsOfBf16AddOnTheGpu) {
  for (const auto& inputs : {factors(3, 96, 64, 48), factors(2, 19, 37, 11), factors(2, 1536, 384, 384)})
    ERMOE_NEEDS_GPU(expect_narrow_adds(narrow(inputs, Twin::exact, Twin::exact)));
}

/// Gradients of u, s and v of a matrix in bf16 whose larger factor's gradient is written once, and in which precision.
std::vector<Tensor> parameter_gradients(GpuBench& bench, const std::vector<OpInput>& inputs, GradWrites writes) {
  Parameter u, s, v;
  Parameter* const all[] = {&u, &s, &v};
  for (size_t i = 0; i < 3; ++i) {
    all[i]->shape = inputs[i].shape;
    all[i]->role = Parameter::Role::factor;
    all[i]->orthonormal = i != 1;
  }
  (u.shape[1] > v.shape[1] ? u : v).narrow_grad = true;
  ParameterArena arena(bench.allocator, DType::f32, DType::bf16, {all, all + 3}, writes);
  for (size_t i = 0; i < 3; ++i) convert(random_input(bench.ctx, inputs[i], DType::f32, RngKey{i}), all[i]->value);
  arena.refresh_compute();
  arena.begin_gradients();
  arena.take_factor_gradients(bench.allocator);
  Tape tape;
  const ExecContext ctx = bench.ctx.with_tape(&tape);
  const Tensor into = ctx.empty({u.shape[0], u.shape[1], v.shape[1]}, DType::bf16);
  const Variable w = materialize(ctx, u, s, v, into, {u.twin, v.twin});
  tape.backward(ctx, w, random_input(ctx, {w.shape()}, DType::bf16, RngKey{9}));
  return {u.grad, s.grad, v.grad};
}

void expect_narrow_factor(const std::vector<OpInput>& inputs) {
  GpuBench once, many;
  const std::vector<Tensor> narrow = parameter_gradients(once, inputs, GradWrites::once),
                            wide = parameter_gradients(many, inputs, GradWrites::many);
  const size_t larger = inputs[0].shape[1] > inputs[2].shape[1] ? 0 : 2;
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(narrow[i].dtype(), i == larger ? DType::bf16 : DType::f32);
    if (i == larger)
      EXPECT_LE(dissimilarity(to_doubles(narrow[i]), to_doubles(wide[i])), 1e-5);
    else
      EXPECT_EQ(to_doubles(narrow[i]), to_doubles(wide[i])) << "gradient " << i;
  }
}

TEST(Materialize, WritesTheLargerFactorsGradientRoundedOnTheGpu) {
  for (const auto& inputs : {factors(3, 96, 64, 48), factors(2, 19, 37, 11), factors(2, 1536, 384, 384)})
    ERMOE_NEEDS_GPU(expect_narrow_factor(inputs));
}

TEST(Materialize, GradientsDoNotDependOnWhichOthersAreWantedOnTheGpu) {
  for (const auto& inputs : {factors(3, 96, 64, 48), factors(2, 19, 37, 11)}) {
    ERMOE_NEEDS_GPU(expect_gradients_do_not_depend_on_each_other<GpuBench>({.name = "", .inputs = inputs, .run = run}));
    ERMOE_NEEDS_GPU(expect_gradients_do_not_depend_on_each_other<GpuBench>(narrow(inputs)));
  }
}
#endif

TEST(Materialize, RefusesFactorsThatDoNotFit) {
  TestBench bench;
  const auto make = [&](Shape shape) { return Variable(random_input(bench.ctx, {shape}, DType::f32, RngKey{1})); };
  expect_error([&] { materialize(bench.ctx, make({2, 5, 3}), make({2, 4}), make({2, 6, 3})); }, {"[materialize]", "(2, 5, 3)", "(2, 4)"});
  expect_error([&] { materialize(bench.ctx, make({2, 5, 3}), make({2, 3}), make({2, 6, 4})); }, {"[materialize]", "(2, 6, 4)"});
  const Tensor narrow = bench.ctx.empty({2, 6, 5}, DType::f32);
  expect_error(
      [&] {
        materialize(bench.ctx, make({2, 5, 3}), make({2, 3}), make({2, 6, 3}), narrow);
      },
      {"[materialize]", "(2, 5, 6)", "(2, 6, 5)"});
}

TEST(Materialize, RefusesTwinsThatAreNone) {
  TestBench bench;
  const auto make = [&](Shape shape) { return Variable(random_input(bench.ctx, {shape}, DType::f32, RngKey{1})); };
  const auto with = [&](const FactorTwins& twins) { materialize(bench.ctx, make({2, 5, 3}), make({2, 3}), make({2, 6, 3}), {}, twins); };
  expect_error([&] { with({bench.ctx.empty({2, 6, 3}, DType::bf16), {}}); }, {"[materialize]", "u (2, 5, 3)", "(2, 6, 3)"});
  expect_error([&] { with({{}, bench.ctx.empty({2, 6, 3}, DType::f32)}); }, {"[materialize]", "v (2, 6, 3)", "f32"});
}

TEST(Materialize, BitsDoNotDependOnTheNumberOfThreads) {
  expect_same_bits_for_any_threads({.name = "", .inputs = factors(5, 133, 71, 65), .run = run});
}

}  // namespace
}  // namespace ermoe::testing
