#include "ops/combine_weights.h"

#include "tests/ops/expect_error.h"
#include "tests/ops/op_case.h"
#include "tests/ops/routing_fixture.h"
#include "tests/ops/thread_case.h"

namespace ermoe::testing {
namespace {

constexpr const char* rule_names[] = {"normalized", "softmax", "raw"};

Tensor scalar(const ExecContext& ctx, DType dtype, double value) {
  Tensor t = ctx.empty({1}, dtype);
  fill(t, value);
  return t;
}

std::vector<OpCase> cases() {
  std::vector<OpCase> all;
  for (CombineRule rule : {CombineRule::normalized, CombineRule::softmax, CombineRule::raw})
    for (const Routing& r : routings())
      for (int64_t free_experts : {0, 1}) {  // the last ids become those of free experts
        std::vector<OpInput> inputs = {{.shape = {r.tokens, r.experts - free_experts}, .precision = OpInput::Precision::master}};
        if (rule == CombineRule::softmax) inputs.push_back({.shape = {1}, .precision = OpInput::Precision::master});
        all.push_back({.name = std::string(rule_names[static_cast<int>(rule)]) + "_" + r.name + (free_experts > 0 ? "_free" : ""),
                       .inputs = inputs,
                       .run = [=](const ExecContext& ctx, Vars x) {
                         const Tensor threshold = free_experts > 0 ? scalar(ctx, x[0].dtype(), 0.125) : Tensor();
                         return combine_weights(ctx, x[0], ids_of(ctx, r), rule, threshold, x.size() > 1 ? x[1] : Variable());
                       }});
      }
  return all;
}

OP_CASES_OF(CombineWeightsOp, cases());

TEST(CombineWeights, AddToOneOverTheFilledSlots) {
  for (CombineRule rule : {CombineRule::normalized, CombineRule::softmax})
    for (const Routing& r : routings()) {
      TestBench bench;
      const Tensor scores = random_input(bench.ctx, {{r.tokens, r.experts}}, DType::f64, RngKey{3});
      const Tensor ids = ids_of(bench.ctx, r);
      const Tensor w = combine_weights(bench.ctx, Variable(scores), ids, rule, {}, Variable(scalar(bench.ctx, DType::f64, 0.7))).value;
      for (int64_t n = 0; n < r.tokens; ++n) {
        double sum = 0;
        bool filled = false;
        for (int64_t slot = n * r.slots; slot < (n + 1) * r.slots; ++slot) {
          sum += w.data<double>()[slot];
          filled |= ids.data<int32_t>()[slot] >= 0;
          EXPECT_EQ(w.data<double>()[slot] > 0, ids.data<int32_t>()[slot] >= 0);
        }
        EXPECT_NEAR(sum, filled ? 1.0 : 0.0, 1e-14) << r.name << " token " << n;
      }
    }
}

TEST(CombineWeights, FlooredScoresGetNoGradient) {
  TestBench bench;
  Tape tape;
  const ExecContext ctx = bench.ctx.with_tape(&tape);
  const std::vector<double> s = {-0.5, 0.25, 0.75};
  const std::vector<int32_t> chosen = {0, 1, 2};
  const Variable scores = tape.leaf(Tensor::from<double>(bench.allocator, {1, 3}, s));
  const Tensor ids = Tensor::from<int32_t>(bench.allocator, {1, 3}, chosen);
  const Variable w = combine_weights(ctx, scores, ids, CombineRule::normalized, {}, {});
  const double sum = 1e-3 + 0.25 + 0.75;
  EXPECT_DOUBLE_EQ(w.value.data<double>()[0], 1e-3 / sum);
  EXPECT_DOUBLE_EQ(w.value.data<double>()[2], 0.75 / sum);
  tape.backward(ctx, w, random_input(ctx, {{1, 3}}, DType::f64, RngKey{5}));
  EXPECT_EQ(tape.grad(scores).data<double>()[0], 0.0);
  EXPECT_NE(tape.grad(scores).data<double>()[1], 0.0);
}

TEST(CombineWeights, AFreeExpertScoresTheThreshold) {
  TestBench bench;
  const std::vector<double> s = {0.75, 0.25};
  const std::vector<int32_t> chosen = {0, 2};
  const Variable scores(Tensor::from<double>(bench.allocator, {1, 2}, s));
  const Tensor ids = Tensor::from<int32_t>(bench.allocator, {1, 2}, chosen);
  const Tensor threshold = scalar(bench.ctx, DType::f64, 0.5);
  EXPECT_DOUBLE_EQ(combine_weights(bench.ctx, scores, ids, CombineRule::raw, threshold, {}).value.data<double>()[1], 0.5);
  EXPECT_DOUBLE_EQ(combine_weights(bench.ctx, scores, ids, CombineRule::normalized, threshold, {}).value.data<double>()[1], 0.4);
  EXPECT_DOUBLE_EQ(combine_weights(bench.ctx, scores, ids, CombineRule::raw, {}, {}).value.data<double>()[1], 0.0);
  const Tensor nothing_yet = scalar(bench.ctx, DType::f64, -INFINITY);
  EXPECT_DOUBLE_EQ(combine_weights(bench.ctx, scores, ids, CombineRule::raw, nothing_yet, {}).value.data<double>()[1], 0.0);
}

TEST(CombineWeights, SoftmaxOfLargeScoresStaysFinite) {
  TestBench bench;
  const std::vector<float> s = {3000.0f, 2999.0f};
  const std::vector<int32_t> chosen = {0, 1};
  const Tensor w = combine_weights(bench.ctx, Variable(Tensor::from<float>(bench.allocator, {1, 2}, s)),
                                   Tensor::from<int32_t>(bench.allocator, {1, 2}, chosen), CombineRule::softmax, {},
                                   Variable(scalar(bench.ctx, DType::f32, 0)))
                       .value;
  EXPECT_FLOAT_EQ(w.data<float>()[0], 1 / (1 + std::exp(-1.0f)));
}

TEST(CombineWeights, SoftmaxWithoutATemperatureIsRefused) {
  TestBench bench;
  const Routing r = routings()[0];
  const Variable scores(random_input(bench.ctx, {{r.tokens, r.experts}}, DType::f32, RngKey{1}));
  expect_error([&] { combine_weights(bench.ctx, scores, ids_of(bench.ctx, r), CombineRule::softmax, {}, {}); },
               {"[combine_weights]", "temperature"});
}

TEST(CombineWeights, BitsDoNotDependOnTheNumberOfThreads) {
  const Routing r{"", 6007, 2, 5, [](int64_t n, int64_t k) { return static_cast<int32_t>((n * n + k) % 5); }};
  expect_same_bits_for_any_threads(
      {.name = "", .inputs = {{.shape = {6007, 5}}, {.shape = {1}}}, .run = [r](const ExecContext& ctx, Vars x) {
         return combine_weights(ctx, x[0], ids_of(ctx, r), CombineRule::softmax, {}, x[1]);
       }});
}

}  // namespace
}  // namespace ermoe::testing
