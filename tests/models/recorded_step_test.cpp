// A recorded step is the step itself: the same bits, refusals included, whatever changes between steps.
#include "models/recorded_step.h"

#include "tests/models/small_training.h"

#include <set>

namespace ermoe::testing {
namespace {

VitConfig random_config(const std::string& router) {
  VitConfig c = tiny_config();
  c.dropout = 0.1;
  c.drop_path = 0.2;
  if (router == "vmoe") {
    c.moe.router = RouterKind::vmoe;
    c.moe.expert = ExpertKind::plain;
    c.moe.basis = Basis::untied;
  } else if (router == "bias_balanced") {
    c.moe.router = RouterKind::bias_balanced;
  } else if (router == "learned_cosine") {
    c.moe.router = RouterKind::learned_cosine;
  } else if (router == "prioritized") {
    c.moe.router = RouterKind::vmoe;
    c.moe.capacity_train = 0.75;
    c.moe.prioritized = true;
  } else if (router == "emoe") {
    c.moe.router = RouterKind::emoe;
    c.moe.emoe_rank = 6;
  } else if (router == "adapters") {
    c.moe.router = RouterKind::emoe;
    c.moe.hidden = 0;
    c.moe.adapter = 12;
    c.moe.adapter_scale = 0.5;
    c.moe.layers = "last:2";
  } else if (router == "prototype") {
    c.moe.router = RouterKind::prototype;
  } else if (router == "mixed") {
    c.moe.layer = ExpertLayer::cp;
  } else if (router == "dropped") {
    c.moe.expert_dropout = 0.5;
    c.moe.expert_clusters = 2;
  } else if (router == "soft") {
    c.moe.router = RouterKind::soft;
  } else if (router == "expert_choice") {
    c.moe.router = RouterKind::expert_choice;
  } else if (router == "terms") {
    c.moe.router = RouterKind::linear;
    c.moe.simbal_weight = c.moe.orthogonal_output_weight = c.moe.variance_weight = 0.1;
  } else if (router == "disjoint") {
    c.moe.basis = Basis::disjoint;
    c.moe.threshold = "quantile:0.1";
  } else if (router == "wide") {  // enough columns for the orthogonal step on the tensor cores
    c.width = 64;
    c.moe.hidden = 96;
    c.depth = 4;  // several layers, whose matrices are made together
    c.moe.layers = "every:1";
  } else if (router == "recompute") {
    c.recompute = true;
  } else if (router == "penalty") {
    c.moe.orthogonality = Orthogonality::penalty;
    c.depth = 3;
    c.moe.layers = "every:1";
  } else if (router == "dense") {
    c.moe.layers = "none";
  }
  return c;
}

TEST(RecordedStep, WithoutAGpuNothingIsRecorded) {
  SmallTraining<TestBench> a(random_config("ermoe"), nullptr, DType::f32), b(random_config("ermoe"), nullptr, DType::f32);
  for (int64_t i = 0; i < 5; ++i) {
    const StepReport first = a.step(i, 4, 2), second = b.step(i, 4, 2);
    EXPECT_TRUE(first.accepted) << first.fault;
    EXPECT_EQ(first.loss, second.loss);
    EXPECT_FALSE(a.recorded());
  }
  expect_same(a.state(), b.state());
}

/// The same images in every step and a rate of 0: losses differ by what was dropped alone. A training that goes on from a later
/// number of draws repeats the later losses.
template <typename Bench>
void draws_anew(Gpu* gpu) {
  VitConfig config = random_config("dense");
  config.dropout = 0.5;
  const auto losses = [&](int64_t draws, int64_t steps) {
    SmallTraining<Bench> training(config, gpu, DType::f32, true, 0.0);
    training.set_draws(draws);
    std::vector<double> all;
    for (int64_t i = 0; i < steps; ++i) all.push_back(training.step(1).loss);
    return all;
  };
  const auto whole = losses(0, 6), rest = losses(2, 4);
  EXPECT_EQ(std::set<double>(whole.begin(), whole.end()).size(), whole.size());
  EXPECT_EQ(std::vector<double>(whole.begin() + 2, whole.end()), rest);
}

TEST(RecordedStep, DrawsAnewInEveryStep) { draws_anew<TestBench>(nullptr); }

#if defined(ERMOE_WITH_CUDA)

TEST(RecordedStep, GpuDrawsAnewInEveryStep) { ERMOE_NEEDS_GPU(draws_anew<GpuBench>(test_gpu())); }

class RecordedOnGpu : public ::testing::TestWithParam<std::tuple<std::string, DType>> {
 protected:
  void SetUp() override {
    if (test_gpu() == nullptr) GTEST_SKIP() << "no GPU";
  }
};

TEST_P(RecordedOnGpu, ReplaysTheSameBitsOverTwentySteps) {
  const auto& [router, dtype] = GetParam();
  SmallTraining<GpuBench> eager(random_config(router), test_gpu(), dtype, false), recorded(random_config(router), test_gpu(), dtype);
  for (int64_t i = 0; i < 20; ++i) {
    const int64_t images = i < 12 ? 4 : 3;  // another shape: op by op, then recorded again
    const StepReport a = eager.step(i, images, 2), b = recorded.step(i, images, 2);
    ASSERT_TRUE(a.accepted) << a.fault;
    ASSERT_TRUE(b.accepted) << b.fault;
    EXPECT_EQ(a.loss, b.loss) << "step " << i;
    EXPECT_EQ(a.extra_loss, b.extra_loss);
    EXPECT_EQ(a.grad_norm, b.grad_norm);
    EXPECT_FALSE(eager.recorded());
    EXPECT_EQ(recorded.recorded(), (i >= 2 && i < 12) || i >= 14);
    if (i % 5 == 4) recorded.evaluate();
  }
  expect_same(eager.state(), recorded.state());
  expect_same(eager.gradients(), recorded.gradients());
}

TEST_P(RecordedOnGpu, MeasuringPurityChangesNoBit) {
  const auto& [router, dtype] = GetParam();
  SmallTraining<GpuBench> alone(random_config(router), test_gpu(), dtype), measured(random_config(router), test_gpu(), dtype);
  for (int64_t i = 0; i < 9; ++i) {
    if (i % 4 == 0) {
      const std::vector<TermPurity> terms = measured.measure(i);
      EXPECT_EQ(terms.empty(), router != "vmoe" && router != "terms" && router != "prioritized" && router != "prototype");
      for (const TermPurity& term : terms) EXPECT_LE(std::abs(term.router.cosine.value_or(0)), 1 + 1e-6);
    }
    const StepReport a = alone.step(i), b = measured.step(i);
    EXPECT_EQ(a.loss, b.loss) << "step " << i;
    EXPECT_EQ(a.grad_norm, b.grad_norm);
    EXPECT_EQ(measured.recorded(), i >= 2);  // recorded anew in the step after a measurement
  }
  expect_same(alone.state(), measured.state());
}

TEST_P(RecordedOnGpu, ARefusedStepChangesNoBit) {
  const auto& [router, dtype] = GetParam();
  SmallTraining<GpuBench> training(random_config(router), test_gpu(), dtype);
  for (int64_t i = 0; i < 4; ++i) ASSERT_TRUE(training.step(i).accepted);
  ASSERT_TRUE(training.recorded());
  const Snapshot before = training.state();
  const StepReport refused = training.step(4, 4, 1, true);
  EXPECT_FALSE(refused.accepted);
  EXPECT_FALSE(refused.fault.empty());
  EXPECT_TRUE(training.recorded());
  expect_same(before, training.state());
  EXPECT_TRUE(training.step(5).accepted);
}

TEST_P(RecordedOnGpu, AHundredStepsRepeatBitForBit) {
  const auto& [router, dtype] = GetParam();
  SmallTraining<GpuBench> first(random_config(router), test_gpu(), dtype), second(random_config(router), test_gpu(), dtype);
  for (int64_t i = 0; i < 100; ++i) ASSERT_EQ(first.step(i).loss, second.step(i).loss) << "step " << i;
  expect_same(first.state(), second.state());
}

/// One micro-batch a step, so that gradients of the experts' matrices may be bf16.
SmallTraining<GpuBench> of_one_micro_batch(const std::string& router, DType dtype, bool with_recording, GradWrites writes) {
  return {random_config(router), test_gpu(), dtype, with_recording, 1e-3, writes};
}

TEST_P(RecordedOnGpu, GradientsWrittenOnceReplayTheSameBits) {
  const auto& [router, dtype] = GetParam();
  SmallTraining<GpuBench> eager = of_one_micro_batch(router, dtype, false, GradWrites::once);
  SmallTraining<GpuBench> recorded = of_one_micro_batch(router, dtype, true, GradWrites::once);
  for (int64_t i = 0; i < 10; ++i) {
    const bool spoilt = i == 6;
    const StepReport a = eager.step(i, 4, 1, spoilt), b = recorded.step(i, 4, 1, spoilt);
    EXPECT_EQ(a.accepted, !spoilt) << a.fault;
    EXPECT_EQ(b.accepted, !spoilt) << b.fault;
    EXPECT_EQ(a.fault, b.fault);
    EXPECT_TRUE(spoilt || a.loss == b.loss) << "step " << i;
    EXPECT_EQ(recorded.recorded(), i >= 2);
  }
  expect_same(eager.state(), recorded.state());
  expect_same(eager.gradients(), recorded.gradients());
}

/// Sizes at which products get the same algorithm wherever their operands lie. Factors' products may add up in another order where
/// they end in bf16, and their moments see gradients that are rounded: by up to 2⁻⁹ of each element.
TEST(RecordedStep, GpuRoundsOnceWhereGradientsAreWrittenOnce) {
  if (test_gpu() == nullptr) GTEST_SKIP() << "no GPU";
  SmallTraining<GpuBench> once = of_one_micro_batch("wide", DType::bf16, false, GradWrites::once);
  SmallTraining<GpuBench> many = of_one_micro_batch("wide", DType::bf16, false, GradWrites::many);
  EXPECT_EQ(once.step(0).loss, many.step(0).loss);
  const Snapshot narrow = once.gradients(), wide = many.gradients();
  std::set<std::string> rounded;
  for (const auto& [name, gradient] : narrow) {
    const std::string own = name.substr(name.rfind('.') + 1);
    const bool factor = own == "U1" || own == "V2";
    if (gradient.dtype() == DType::bf16) rounded.insert(own);
    EXPECT_EQ(wide.at(name).dtype(), DType::f32);
    if (factor)
      EXPECT_LE(dissimilarity(to_doubles(gradient), to_doubles(wide.at(name))), 1e-5) << name;
    else
      EXPECT_EQ(to_doubles(gradient), gradient.dtype() == DType::bf16 ? bf16_values(wide.at(name)) : to_doubles(wide.at(name))) << name;
  }
  EXPECT_EQ(rounded, (std::set<std::string>{"U1", "V2", "W1", "W2"}));
  const Snapshot after = many.state();
  for (const auto& [name, tensor] : once.state()) EXPECT_LE(dissimilarity(to_doubles(tensor), to_doubles(after.at(name))), 1e-5) << name;
}

INSTANTIATE_TEST_SUITE_P(Steps, RecordedOnGpu,
                         ::testing::Combine(::testing::Values("ermoe", "disjoint", "wide", "vmoe", "bias_balanced", "learned_cosine",
                                                              "soft", "expert_choice", "prioritized", "emoe", "adapters", "prototype",
                                                              "dropped", "mixed", "terms", "recompute", "penalty", "dense"),
                                            ::testing::Values(DType::f32, DType::bf16)),
                         [](const auto& test) { return std::get<0>(test.param) + "_" + name_of(std::get<1>(test.param)); });

#endif

}  // namespace
}  // namespace ermoe::testing
