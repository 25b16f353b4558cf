#include "ops/adamw.h"

#include "tests/bench.h"
#include "tests/gpu_bench.h"

#include <gtest/gtest.h>

namespace ermoe::testing {
namespace {

/// AdamW as its paper writes it, one scalar at a time.
struct ScalarAdam {
  double p, m = 0, v = 0;
  void step(double g, int t, double lr, double decay) {
    m = 0.9 * m + 0.1 * g;
    v = 0.999 * v + 0.001 * g * g;
    const double m_hat = m / (1 - std::pow(0.9, t)), v_hat = v / (1 - std::pow(0.999, t));
    p = p - lr * decay * p - lr * m_hat / (std::sqrt(v_hat) + 1e-8);
  }
};

TEST(Adamw, FollowsTheScalarRuleWithChangingGradients) {
  TestBench bench;
  const int64_t n = 37;
  const Tensor p = random_input(bench.ctx, {Shape{n}}, DType::f64, RngKey{1});
  const Tensor m = Tensor::zeros(bench.allocator, {n}, DType::f64), v = Tensor::zeros(bench.allocator, {n}, DType::f64);
  std::vector<ScalarAdam> oracle;
  for (double start : p.span<double>()) oracle.push_back({start});
  for (int t = 1; t <= 20; ++t) {
    const Tensor g = random_input(bench.ctx, {Shape{n}}, DType::f64, RngKey{100 + static_cast<uint64_t>(t)});
    const double scale = 1.0 / t, lr = 1e-2 * t, decay = 0.1;
    AdamDims step{
        .lr = lr, .decay = decay, .grad_scale = scale, .correction1 = 1 - std::pow(0.9, t), .correction2 = 1 - std::pow(0.999, t)};
    adamw_step(bench.ctx, step, p, g, m, v);
    for (int64_t i = 0; i < n; ++i) oracle[static_cast<size_t>(i)].step(scale * g.data<double>()[i], t, lr, decay);
  }
  for (int64_t i = 0; i < n; ++i)
    EXPECT_NEAR(p.data<double>()[i], oracle[static_cast<size_t>(i)].p, 1e-12 * std::abs(oracle[static_cast<size_t>(i)].p));
}

TEST(Adamw, DirectionIsTheStepWithoutDecay) {
  TestBench bench;
  const int64_t n = 11;
  const Tensor p = random_input(bench.ctx, {Shape{n}}, DType::f64, RngKey{1}), before = p.clone();
  const Tensor g = random_input(bench.ctx, {Shape{n}}, DType::f64, RngKey{2}), direction = bench.ctx.empty({n}, DType::f64);
  const auto zeros = [&] { return Tensor::zeros(bench.allocator, {n}, DType::f64); };
  const AdamDims step{.lr = 0.5, .correction1 = 1 - 0.9, .correction2 = 1 - 0.999};
  adamw_step(bench.ctx, step, p, g, zeros(), zeros());
  const Tensor state = make_step_state(bench.ctx);
  accept_step(bench.ctx, {}, 2, 1, state);
  adam_direction(bench.ctx, {}, state, 0.25, g, zeros(), zeros(), direction);
  for (int64_t i = 0; i < n; ++i) EXPECT_NEAR(before.data<double>()[i] - direction.data<double>()[i], p.data<double>()[i], 1e-14);
}

TEST(Adamw, NormSeesANotANumberAndMatchesAPlainSum) {
  TestBench bench;
  const Tensor t = random_input(bench.ctx, {Shape{20'003}}, DType::f32, RngKey{3});
  double sum = 0;
  for (float x : t.span<float>()) sum += static_cast<double>(x) * x;
  EXPECT_NEAR(item<double>(squared_norm(bench.ctx, t)), sum, 1e-9 * sum);
  t.data<float>()[777] = NAN;
  EXPECT_TRUE(std::isnan(item<double>(squared_norm(bench.ctx, t))));
}

/// Parameters of several sizes with gradients and moments, as an optimizer has them; the same numbers on every device.
struct Training {
  std::vector<AdamwEntry> entries;
  std::vector<Tensor> gradients;
  AdamwTable table;
  Tensor state;

  template <typename Bench>
  explicit Training(Bench& bench, DType dtype = DType::f32) {
    uint64_t key = 0;
    for (int64_t n : {1, 7, 384, 8192, 0, 20'001}) {
      const auto random = [&] { return random_input(bench.ctx, {Shape{n}}, dtype, RngKey{50}.fold(key++)); };
      const auto zeros = [&](DType of) { return Tensor::zeros(bench.allocator, {n}, of); };
      entries.push_back({.p = random(),
                         .g = random(),
                         .m = zeros(dtype),
                         .v = zeros(dtype),
                         .compute = n == 7 ? Tensor() : zeros(DType::bf16),
                         .lr_scale = n == 384 ? 0.25 : 1.0,
                         .decay = n == 8192 ? 0.05 : 0.0});
      gradients.push_back(entries.back().g);
    }
    table = AdamwTable(bench.ctx, dtype, entries);
    state = make_step_state(bench.ctx);
  }

  /// Every tensor that a step changes.
  std::vector<std::vector<double>> all() const {
    std::vector<std::vector<double>> values;
    for (const AdamwEntry& e : entries)
      for (const Tensor& t : {e.p, e.m, e.v, e.compute})
        if (t.defined()) values.push_back(to_doubles(t));
    return values;
  }
};

TEST(Adamw, ATableStepsEachParameterAsItWouldBeAlone) {
  TestBench bench;
  const Training together(bench), alone(bench);
  for (int t = 1; t <= 3; ++t) {
    accept_step(bench.ctx, {}, 1e-2 * t, 0.5, together.state);
    together.table.step(bench.ctx, {}, together.state);
    for (const AdamwEntry& e : alone.entries) {
      AdamDims step{.lr = 1e-2 * t * e.lr_scale, .decay = e.decay, .grad_scale = 0.5};
      step.correction1 = 1 - std::pow(step.beta1, t), step.correction2 = 1 - std::pow(step.beta2, t);
      adamw_step(bench.ctx, step, e.p, e.g, e.m, e.v);
      if (e.compute.defined()) convert(e.p, e.compute);
    }
    EXPECT_EQ(together.all(), alone.all());
  }
  EXPECT_EQ(read_step_state(together.state).steps, 3);
}

TEST(Adamw, AStepIsClippedToTheNorm) {
  TestBench bench;
  const Training x(bench);
  double squares = 0;
  for (const Tensor& g : x.gradients) squares += item<double>(squared_norm(bench.ctx, g));
  set_learning_rate(bench.ctx, 3e-4, x.state);
  for (double clip : {0.0, 1.0, 1e9}) {
    judge_step(bench.ctx, {}, clip, x.gradients, {}, x.state);
    const StepState state = read_step_state(x.state);
    EXPECT_EQ(state.accepted, 1);
    EXPECT_EQ(state.lr, 3e-4);
    EXPECT_DOUBLE_EQ(state.grad_norm, std::sqrt(squares));
    EXPECT_DOUBLE_EQ(state.grad_scale, clip == 1.0 ? 1 / std::sqrt(squares) : 1.0);
  }
  EXPECT_EQ(read_step_state(x.state).steps, 3);
}

/// A refused step changes nothing and is not counted; its direction is zero.
template <typename Bench>
void expect_refusals(Bench& bench) {
  const Training x(bench);
  const auto before = x.all();
  const Tensor average = x.entries[3].m.clone(), direction = bench.ctx.empty({8192}, DType::f32);
  for (float fault : {1.0f, -1.0f, NAN, INFINITY}) {
    const Tensor faults = Tensor::from<float>(bench.allocator, {3}, std::vector<float>{0, fault, 0});
    judge_step(bench.ctx, {}, 1, x.gradients, faults, x.state);
    x.table.step(bench.ctx, {}, x.state);
    moving_average(bench.ctx, 0.9, x.state, x.entries[3].p, average);
    adam_direction(bench.ctx, {}, x.state, 1, x.entries[3].g, x.entries[3].m, x.entries[3].v, direction);
    EXPECT_EQ(read_step_state(x.state).accepted, 0) << fault;
    EXPECT_EQ(read_step_state(x.state).steps, 0) << fault;
    EXPECT_EQ(x.all(), before) << fault;
    EXPECT_EQ(to_doubles(average), std::vector<double>(8192)) << fault;
    EXPECT_EQ(to_doubles(direction), std::vector<double>(8192)) << fault;
  }
  const Tensor none = Tensor::zeros(bench.allocator, {3}, DType::f32);
  fill(x.gradients[5].slice(20'000, 20'001), NAN);
  judge_step(bench.ctx, {}, 1, x.gradients, none, x.state);
  EXPECT_EQ(read_step_state(x.state).accepted, 0);
  fill(x.gradients[5].slice(20'000, 20'001), 1);
  judge_step(bench.ctx, {}, 1, x.gradients, none, x.state);
  EXPECT_EQ(read_step_state(x.state).accepted, 1);
}

TEST(Adamw, ARefusedStepChangesNothing) {
  TestBench bench;
  expect_refusals(bench);
}

/// A direction in bf16 is the f32 one rounded; moments do not know the difference, nor do refusals.
template <typename Bench>
void expect_rounded_directions(Bench& bench) {
  const auto input = [&](uint64_t key) { return random_input(bench.ctx, {Shape{20'001}}, DType::f32, RngKey{key}); };
  const auto zeros = [&] { return Tensor::zeros(bench.allocator, {20'001}, DType::f32); };
  const Tensor m = zeros(), v = zeros(), m_too = zeros(), v_too = zeros(), state = make_step_state(bench.ctx);
  const Tensor wide = bench.ctx.empty({20'001}, DType::f32), narrow = bench.ctx.empty({20'001}, DType::bf16);
  for (uint64_t step = 0; step < 3; ++step) {
    accept_step(bench.ctx, {}, 1e-3, 0.7, state);
    adam_direction(bench.ctx, {}, state, 0.5, input(step), m, v, wide);
    adam_direction(bench.ctx, {}, state, 0.5, input(step), m_too, v_too, narrow);
    EXPECT_EQ(to_doubles(narrow), bf16_values(wide));
    EXPECT_EQ(to_doubles(m_too), to_doubles(m));
    EXPECT_EQ(to_doubles(v_too), to_doubles(v));
  }
  const Tensor fault = Tensor::from<float>(bench.allocator, {1}, std::vector<float>{1}), gradients[] = {input(9)};
  judge_step(bench.ctx, {}, 0, gradients, fault, state);
  adam_direction(bench.ctx, {}, state, 0.5, input(9), m_too, v_too, narrow);
  EXPECT_EQ(to_doubles(narrow), std::vector<double>(20'001));
  EXPECT_EQ(to_doubles(m_too), to_doubles(m));
}

TEST(Adamw, DirectionsMayBeRoundedToBf16) {
  TestBench bench;
  expect_rounded_directions(bench);
}

#if defined(ERMOE_WITH_CUDA)
/// The norm of a narrow gradient, read where a fault is looked for.
void expect_norm_of_bf16() {
  GpuBench bench;
  for (const int64_t shift : {0, 1}) {  // packs of 16 bytes, and what is not aligned to them
    const Tensor wide = random_input(bench.ctx, {Shape{20'003}}, DType::f32, RngKey{3}), block = bench.ctx.empty({20'004}, DType::bf16);
    const Tensor t = block.window(shift, wide.shape());
    convert(wide, t);
    double sum = 0;
    for (double x : bf16_values(wide)) sum += x * x;
    EXPECT_NEAR(item<double>(squared_norm(bench.ctx, t)), sum, 1e-6 * sum);
    fill(block.window(777, {1}), NAN);
    EXPECT_TRUE(std::isnan(item<double>(squared_norm(bench.ctx, t))));
  }
}

/// A gradient in bf16 steps as the same numbers in f32 do, bit for bit.
void expect_direction_of_bf16() {
  GpuBench bench;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const auto zeros = [&] { return Tensor::zeros(bench.allocator, {20'001}, DType::f32); };
    const Tensor m = zeros(), v = zeros(), m_too = zeros(), v_too = zeros(), state = make_step_state(bench.ctx);
    const Tensor want = bench.ctx.empty({20'001}, dtype), got = bench.ctx.empty({20'001}, dtype), wide = zeros();
    for (uint64_t step = 0; step < 3; ++step) {
      const Tensor narrow = random_input(bench.ctx, {Shape{20'001}}, DType::bf16, RngKey{step});
      convert(narrow, wide);
      accept_step(bench.ctx, {}, 1e-3, 0.7, state);
      adam_direction(bench.ctx, {}, state, 0.5, wide, m, v, want);
      adam_direction(bench.ctx, {}, state, 0.5, narrow, m_too, v_too, got);
      EXPECT_EQ(to_doubles(got), to_doubles(want));
      EXPECT_EQ(to_doubles(m_too), to_doubles(m));
      EXPECT_EQ(to_doubles(v_too), to_doubles(v));
    }
  }
}

TEST(Adamw, DirectionsOfGradientsInBf16OnTheGpu) { ERMOE_NEEDS_GPU(expect_direction_of_bf16()); }
TEST(Adamw, NormOfBf16SeesANotANumberOnTheGpu) { ERMOE_NEEDS_GPU(expect_norm_of_bf16()); }

void expect_gpu_rounds_directions() {
  GpuBench bench;
  expect_rounded_directions(bench);
}

void expect_gpu_refuses() {
  GpuBench bench;
  expect_refusals(bench);
}

void expect_gpu_steps_agree() {
  TestBench cpu;
  GpuBench gpu, again;
  const auto train = [](auto& bench) {
    const Training x(bench);
    const Tensor average = x.entries[5].p.clone(), direction = bench.ctx.empty({20'001}, DType::f32), m = x.entries[5].m.clone(),
                 v = x.entries[5].v.clone();
    for (int t = 1; t <= 5; ++t) {
      set_learning_rate(bench.ctx, 1e-2 / t, x.state);
      judge_step(bench.ctx, {}, t == 2 ? 0 : 1, x.gradients, {}, x.state);
      x.table.step(bench.ctx, {}, x.state);
      moving_average(bench.ctx, 0.9, x.state, x.entries[5].p, average);
      adam_direction(bench.ctx, {}, x.state, 0.5, x.entries[5].g, m, v, direction);
    }
    adamw_step(bench.ctx, {.lr = 0.1, .correction1 = 0.1, .correction2 = 0.01}, x.entries[2].p, x.entries[2].g, x.entries[2].m,
               x.entries[2].v);
    auto values = x.all();
    for (const Tensor& t : {average, direction, m, v}) values.push_back(to_doubles(t));
    const StepState state = read_step_state(x.state);
    values.push_back({state.grad_norm, state.grad_scale, state.correction1, state.correction2, static_cast<double>(state.steps)});
    return values;
  };
  const auto want = train(cpu), got = train(gpu);
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) EXPECT_LE(normalised_error(got[i], want[i]), 1e-9) << "tensor " << i;
  EXPECT_EQ(train(again), got);  // bit for bit
}

TEST(Adamw, OnAGpuStepsAlike) { ERMOE_NEEDS_GPU(expect_gpu_steps_agree()); }
TEST(Adamw, OnAGpuDirectionsMayBeRoundedToo) { ERMOE_NEEDS_GPU(expect_gpu_rounds_directions()); }
TEST(Adamw, OnAGpuRefusesStepsToo) { ERMOE_NEEDS_GPU(expect_gpu_refuses()); }
#endif

}  // namespace
}  // namespace ermoe::testing
