// One optimizer step: what is refused and how, clipping, accumulation.
#include "models/train_step.h"

#include "models/weights.h"
#include "ops/attach_loss.h"
#include "ops/scale.h"
#include "tests/models/tiny_training.h"
#include "tests/ops/expect_error.h"

namespace ermoe::testing {
namespace {

TEST(TrainStep, ReportsTheLossTheNormAndTheRoutes) {
  TinyModel tiny, twin;
  TinyTraining training(tiny);
  const double loss = twin.total_loss();
  twin.differentiate();
  double squares = 0;
  for (const auto& [name, grad] : twin.gradients())
    for (double g : to_doubles(grad)) squares += g * g;
  const StepReport report = training.step();
  EXPECT_TRUE(report.accepted);
  EXPECT_EQ(report.fault, "");
  EXPECT_NEAR(report.loss, loss, 1e-14);
  EXPECT_EQ(report.extra_loss, 0);
  EXPECT_NEAR(report.grad_norm, std::sqrt(squares), 1e-12);
  ASSERT_EQ(report.routes.size(), 1u);
  EXPECT_EQ(report.routes[0].block, 1);
}

TEST(TrainStep, AddedTermsStandApart) {
  VitConfig config = tiny_config();
  config.moe.router = RouterKind::switch_lbl;
  config.moe.balance_weight = 0.5;
  TinyModel tiny(config), twin(config);
  const double total = twin.total_loss();
  const StepReport report = TinyTraining(tiny).step();
  EXPECT_GT(report.extra_loss, 0.3);
  EXPECT_NEAR(report.loss + report.extra_loss, total, 1e-14);
}

TEST(TrainStep, SaysWhatItDoes) {
  TinyModel tiny;
  TinyTraining training(tiny);
  std::vector<std::string> phases;
  training.train_step().on_phase([&](const char* phase) {
    if (phases.empty() || phases.back() != phase) phases.emplace_back(phase);
  });
  training.step(2);
  const std::vector<std::string> expected{"the forward pass",  "the backward pass",    "the forward pass",
                                          "the backward pass", "gradients over ranks", "the optimizer's step"};
  EXPECT_EQ(phases, expected) << "and on a CPU nobody waits for a GPU";
}

struct RefusalCase {
  std::string name;
  std::function<void(VitConfig&)> change;
  std::string fault;  // when a pixel is NaN
};

void PrintTo(const RefusalCase& refusal, std::ostream* out) { *out << refusal.name; }

class Refusal : public ::testing::TestWithParam<RefusalCase> {
 protected:
  static VitConfig config() {
    VitConfig c = tiny_config();
    GetParam().change(c);
    return c;
  }
};

TEST_P(Refusal, OfANaNPixelNamesTheLayerAndChangesNoBit) {
  TinyModel tiny(config(), DType::f32);
  MovingAverage average(tiny.bench.ctx, tiny.model.arena(), 0.9);
  TinyTraining training(tiny, {}, &average);
  ASSERT_TRUE(training.step().accepted);
  const auto whole = [&] {
    Snapshot all = training.state();
    average.visit([&](const Parameter& p, const Tensor& t) { all["average " + p.name] = t.clone(); });
    return all;
  };
  const Snapshot before = whole();
  for (float bad : {NAN, INFINITY}) {
    float& pixel = tiny.images.data<float>()[17];
    const float good = pixel;
    pixel = bad;
    const StepReport report = training.step(2);  // in the first of two micro-batches
    pixel = good;
    EXPECT_FALSE(report.accepted);
    EXPECT_EQ(report.fault, GetParam().fault);
    expect_same(before, whole());
    EXPECT_EQ(training.optimizer().steps(), 1);
  }
}

TEST_P(Refusal, LeavesTheNextStepAsIfNothingHadBeen) {
  TinyModel disturbed(config(), DType::f32), calm(config(), DType::f32);
  TinyTraining disturbed_training(disturbed), calm_training(calm);
  for (TinyTraining* training : {&disturbed_training, &calm_training}) ASSERT_TRUE(training->step().accepted);
  float& pixel = disturbed.images.data<float>()[17];
  const float good = pixel;
  pixel = NAN;
  for (int i = 0; i < 2; ++i) EXPECT_FALSE(disturbed_training.step().accepted);
  pixel = good;
  for (int i = 0; i < 3; ++i) {
    const StepReport a = disturbed_training.step(), b = calm_training.step();
    ASSERT_TRUE(a.accepted);
    EXPECT_EQ(a.loss, b.loss);
    EXPECT_EQ(a.grad_norm, b.grad_norm);
  }
  expect_same(disturbed_training.state(), calm_training.state());
}

INSTANTIATE_TEST_SUITE_P(
    TrainStep, Refusal,
    ::testing::Values(
        RefusalCase{"experts", [](VitConfig&) {}, "routing scores of blocks.1 are not finite"},
        RefusalCase{"recomputed", [](VitConfig& c) { c.recompute = true; }, "routing scores of blocks.1 are not finite"},
        RefusalCase{"first_of_two_layers", [](VitConfig& c) { c.moe.layers = "0,1"; }, "routing scores of blocks.0 are not finite"},
        RefusalCase{"disjoint", [](VitConfig& c) { c.moe.basis = Basis::disjoint; }, "routing scores of blocks.1 are not finite"},
        RefusalCase{"linear_router", [](VitConfig& c) { c.moe.router = RouterKind::linear; }, "routing scores of blocks.1 are not finite"},
        RefusalCase{"dense", [](VitConfig& c) { c.moe.layers = "none"; }, "the loss is not finite"}),
    [](const auto& refusal) { return refusal.param.name; });

TEST(TrainStep, AGradientThatIsNotFiniteIsNamed) {
  TinyModel tiny(tiny_config(), DType::f32);
  freeze(tiny.bench.ctx, tiny.model, {"*"});
  tiny.parameter("head.bias").frozen = false;
  TinyTraining training(tiny);
  const Snapshot before = training.state();
  const StepReport report = training.step_with(1, [&](const ExecContext& ctx, const Variable& logits, const Tensor& targets) {
    const Variable loss = tiny.loss_of(ctx, logits, targets);
    return attach_loss(ctx, loss, loss, NAN);  // a finite loss with a gradient that is not
  });
  EXPECT_FALSE(report.accepted);
  EXPECT_TRUE(std::isfinite(report.loss));
  EXPECT_EQ(report.fault, "the gradient of head.bias is not finite");
  expect_same(before, training.state());
}

TEST(TrainStep, AWeightThatIsNotFiniteIsNamedBeforeWhatFollowsFromIt) {
  TinyModel tiny;
  TinyTraining training(tiny);
  ASSERT_TRUE(training.step().accepted);
  Parameter& weight = tiny.parameter("blocks.1.moe.experts.V2");
  weight.value.data<double>()[5] = NAN;
  tiny.model.factors_changed();
  const StepReport report = training.step();
  EXPECT_FALSE(report.accepted);
  EXPECT_EQ(report.fault, "blocks.1.moe.experts.V2 itself is not finite any more; only an earlier checkpoint helps");
}

/// A matrix whose own gradient is finite, made of a small factor and a large one that overflows the other's gradient.
TEST(TrainStep, AFactorsGradientThatIsNotFiniteIsNamed) {
  TinyModel tiny(tiny_config(), DType::f32);
  freeze(tiny.bench.ctx, tiny.model, {"*"});
  Parameter& small = tiny.parameter("blocks.1.moe.experts.U1");
  small.frozen = false;
  for (float& x : small.value.span<float>()) x *= 1e-5f;
  for (float& x : tiny.parameter("blocks.1.moe.experts.V1").value.span<float>()) x *= 1e5f;
  tiny.model.refresh(tiny.bench.ctx);
  TinyTraining training(tiny);
  const Snapshot before = training.state();
  for (int i = 0; i < 2; ++i) {
    const StepReport report = training.step_with(1, [&](const ExecContext& ctx, const Variable& logits, const Tensor& targets) {
      const Variable loss = tiny.loss_of(ctx, logits, targets);
      return attach_loss(ctx, loss, loss, 1e36);
    });
    EXPECT_FALSE(report.accepted);
    EXPECT_EQ(report.fault, "the gradient of blocks.1.moe.experts.U1 is not finite");
    expect_same(before, training.state());
  }
}

/// Memory alone is looked at, since CPUs do not compute in bf16.
TEST(TrainStep, ExpertsMatricesHaveNarrowGradientsWhereAStepIsOneMicroBatch) {
  for (const ExpertKind kind : {ExpertKind::eigen, ExpertKind::plain})
    for (const int64_t micro_batches : {1, 2}) {
      VitConfig config = tiny_config();
      config.moe.expert = kind;
      if (kind == ExpertKind::plain) config.moe.router = RouterKind::linear;
      TinyModel tiny(config, DType::f32);
      const ExecContext& ctx = tiny.bench.ctx;
      tiny.model.move_to(ctx, DType::bf16, grad_writes(micro_batches));
      std::vector<std::string> narrow;
      for (const Parameter* p : parameters_of(tiny.model))
        if (p->grad.defined() && p->grad.dtype() == DType::bf16) narrow.push_back(p->name);
      std::ranges::sort(narrow);
      const bool some = kind == ExpertKind::eigen && micro_batches == 1;
      EXPECT_EQ(narrow,
                some ? std::vector<std::string>({"blocks.1.moe.experts.W1", "blocks.1.moe.experts.W2"}) : std::vector<std::string>());
    }
}

/// Scores are float32 where ops compute in bf16, and the temperature stands beside them.
TEST(TrainStep, TheTemperatureOfScoresStaysInFullPrecision) {
  VitConfig config = tiny_config();
  config.moe.combine = Combine::softmax;
  TinyModel tiny(config, DType::f32);
  tiny.model.move_to(tiny.bench.ctx, DType::bf16);
  int64_t seen = 0;
  for (const Parameter* p : parameters_of(tiny.model)) {
    if (!p->name.ends_with("temperature")) continue;
    ++seen;
    EXPECT_EQ(p->compute_dtype, DType::f32) << p->name;
  }
  EXPECT_GT(seen, 0);
}

TEST(TrainStep, RefusesSeveralMicroBatchesWhereGradientsAreWrittenOnce) {
  TinyModel tiny(tiny_config(), DType::f32);
  const ExecContext& ctx = tiny.bench.ctx;
  tiny.model.move_to(ctx, DType::bf16, GradWrites::once);
  Optimizer optimizer(ctx, tiny.model.arena(), {}, StiefelMethod::newton_schulz);
  TrainStep step(tiny.bench.ctx, tiny.model, optimizer, nullptr, 1.0);
  step.begin(ctx, 1);
  expect_error([&] { step.begin(ctx, 2); }, {"[train_step]", "2 micro-batches"});
}

size_t live_gradients(const CachingAllocator& allocator) {
  for (const auto& [user, bytes] : allocator.users())
    if (user == "gradients") return bytes;
  return 0;
}

TEST(TrainStep, GradientsOfOrthonormalFactorsComeWhenActivationsAreGone) {
  TestBench steps;  // memory of the steps alone; what is made from factors lies there too, so it outlives the model
  TinyModel tiny, twin;
  tiny.images = twin.images = random_input(tiny.bench.ctx, {{64, 2, 8, 8}}, DType::f64, RngKey{5});
  tiny.targets = twin.targets = random_input(tiny.bench.ctx, {{64, 4}, OpInput::Fill::unit}, DType::f64, RngKey{6});
  const OptimConfig config;
  Optimizer optimizer(tiny.bench.ctx, tiny.model.arena(), config, StiefelMethod::newton_schulz);
  TrainStep step(tiny.bench.ctx, tiny.model, optimizer, nullptr, config.clip);
  TinyTraining training(twin);
  const size_t factors = tiny.model.arena().factor_gradient_bytes();
  for (int i = 0; i < 3; ++i) {
    step.begin(steps.ctx, 1);
    EXPECT_EQ(live_gradients(steps.allocator), 0u);
    steps.allocator.reset_peak();
    step.micro_batch(steps.ctx, tiny.images,
                     [&](const ExecContext& ctx, const Variable& logits) { return tiny.loss_of(ctx, logits, tiny.targets); });
    const size_t activations = steps.allocator.stats().peak;
    EXPECT_EQ(live_gradients(steps.allocator), 0u);
    ASSERT_TRUE(step.finish(steps.ctx, config.lr).accepted);
    EXPECT_GE(live_gradients(steps.allocator), factors);
    EXPECT_EQ(steps.allocator.stats().peak, activations);
    ASSERT_TRUE(training.step().accepted);
  }
  size_t orthonormal = 0, others = 0;
  for (const Parameter* p : parameters_of(tiny.model)) (p->orthonormal ? orthonormal : others) += p->shape.numel() * sizeof(double);
  EXPECT_EQ(factors, orthonormal);
  EXPECT_LT(live_gradients(tiny.bench.allocator), others + 8192);  // slots and blocks are rounded up
  expect_same(tiny.values(), twin.values());
}

TEST(TrainStep, ClippingScalesTheGradientToTheLimit) {
  TinyModel tiny, twin;
  const OptimConfig free{.clip = 0};
  TinyTraining measured(twin, free);
  const double norm = measured.step().grad_norm;
  TinyTraining clipped(tiny, {.clip = norm / 4});
  const StepReport report = clipped.step();
  EXPECT_NEAR(report.grad_norm, norm, 1e-13);  // reported as it was
  const Snapshot full = measured.state(), quarter = clipped.state();
  for (const auto& [name, m] : full) {
    if (!name.ends_with(".m") && !name.ends_with(".v")) continue;
    const double share = name.ends_with(".m") ? 0.25 : 0.0625;
    const auto a = to_doubles(m), b = to_doubles(quarter.at(name));
    for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(b[i], share * a[i], 1e-14) << name;
  }
}

TEST(TrainStep, BelowTheLimitNothingIsClipped) {
  TinyModel tiny, twin;
  TinyTraining generous(tiny, {.clip = 1e6}), free(twin, {.clip = 0});
  generous.step();
  free.step();
  expect_same(generous.state(), free.state());
}

TEST(TrainStep, AccumulatedMicroBatchesAreOneBatch) {
  TinyModel whole, parts;
  TinyTraining one(whole, {.eps = 1e-3}), two(parts, {.eps = 1e-3});  // a large ε: Adam's first step is else the gradient's sign
  for (int i = 0; i < 3; ++i) {
    const StepReport a = one.step(), b = two.step(2);
    EXPECT_NEAR(a.loss, b.loss, 1e-12);
    EXPECT_NEAR(a.grad_norm, b.grad_norm, 1e-11);
    EXPECT_EQ(b.routes.size(), 1u);  // of the last micro-batch
  }
  const Snapshot a = one.state(), b = two.state();
  for (const auto& [name, value] : a) EXPECT_LE(largest_difference(value, b.at(name)), 1e-11) << name;
}

TEST(TrainStep, AFaultInAnyMicroBatchRefusesTheStep) {
  TinyModel tiny;
  TinyTraining training(tiny);
  const Snapshot before = training.state();
  for (int faulty : {0, 1, 2, 3}) {
    int micro_batch = 0;
    const StepReport report = training.step_with(4, [&](const ExecContext& ctx, const Variable& logits, const Tensor& targets) {
      const Variable loss = tiny.loss_of(ctx, logits, targets);
      return micro_batch++ == faulty ? scale(ctx, loss, NAN) : loss;
    });
    EXPECT_FALSE(report.accepted);
    EXPECT_EQ(report.fault, "the loss is not finite");
    expect_same(before, training.state());
  }
}

}  // namespace
}  // namespace ermoe::testing
