// The moving average, and using a model with its averaged weights for a while.
#include "models/average.h"

#include "models/checkpoint.h"
#include "models/router_ermoe.h"
#include "ops/orthogonal_step.h"
#include "tests/models/tiny_training.h"
#include "tests/scratch.h"

namespace ermoe::testing {
namespace {

TEST(MovingAverage, FollowsCloselyAtFirstAndThenByItsDecay) {
  TinyModel tiny;
  MovingAverage average(tiny.bench.ctx, tiny.model.arena(), 0.5);
  const auto at = [&] {
    double value = 0;
    average.visit([&](const Parameter& p, const Tensor& t) {
      if (p.name == "head.bias") value = t.data<double>()[0];
    });
    return value;
  };
  double expected = at();
  const Tensor state = make_step_state(tiny.bench.ctx);
  for (int n = 1; n <= 20; ++n) {
    tiny.parameter("head.bias").value.data<double>()[0] = n * n;
    accept_step(tiny.bench.ctx, {}, 1e-3, 1, state);
    average.update(tiny.bench.ctx, state);
    const double decay = std::min(0.5, (1.0 + n) / (10.0 + n));
    expected = decay * expected + (1 - decay) * n * n;
    EXPECT_NEAR(at(), expected, 1e-11) << n;
  }
}

TEST(MovingAverage, HoldsEveryTrainedParameterAndNothingDerived) {
  TinyModel tiny;
  MovingAverage average(tiny.bench.ctx, tiny.model.arena(), 0.9);
  std::vector<std::string> names, expected;
  average.visit([&](const Parameter& p, const Tensor& t) {
    names.push_back(p.name);
    EXPECT_TRUE(same_bits(t, p.value)) << p.name;  // it starts from the current values
  });
  for (const Parameter* p : tiny.trained()) expected.push_back(p->name);
  std::ranges::sort(names);
  std::ranges::sort(expected);
  EXPECT_EQ(names, expected);
}

class Averaged : public ::testing::TestWithParam<Basis> {
 protected:
  Averaged() : tiny_(config(), DType::f32), average_(tiny_.bench.ctx, tiny_.model.arena(), 0.9), training_(tiny_, {.lr = 1e-2}, &average_) {
    for (int i = 0; i < 12; ++i) EXPECT_TRUE(training_.step().accepted);
  }

  static VitConfig config() {
    VitConfig c = tiny_config();
    c.moe.basis = GetParam();
    if (GetParam() == Basis::disjoint) c.moe.basis_rank = 3;
    c.moe.free_experts = 1;
    c.moe.threshold = "quantile:0.2";
    return c;
  }

  ForEachBatch batches() {
    return [this](const auto& fn) {
      fn({.images = tiny_.images.slice(0, 2)});
      fn({.images = tiny_.images.slice(2, 4)});
    };
  }

  Tensor logits() {
    ExecContext ctx = tiny_.bench.ctx;
    ctx.mode = Mode::eval;
    ForwardPass pass;
    return tiny_.model.forward(ctx, Variable(tiny_.images), pass).value;
  }

  TinyModel tiny_;
  MovingAverage average_;
  TinyTraining training_;
};

TEST_P(Averaged, WeightsLeaveTheLiveOnesAsTheyWere) {
  const Snapshot before = training_.state();
  const Tensor live = logits();
  {
    const AveragedWeights averaged(tiny_.bench.ctx, tiny_.model, average_, batches());
    EXPECT_GT(largest_difference(logits(), live), 1e-4);
  }
  expect_same(before, training_.state());
  EXPECT_TRUE(same_bits(logits(), live));  // what is derived is that of the live weights again
  TinyModel twin(config(), DType::f32);
  MovingAverage twin_average(twin.bench.ctx, twin.model.arena(), 0.9);
  TinyTraining twin_training(twin, {.lr = 1e-2}, &twin_average);
  for (int i = 0; i < 13; ++i) twin_training.step();
  EXPECT_TRUE(training_.step().accepted);
  expect_same(training_.state(), twin_training.state());  // and training goes on as if nothing had been
}

TEST_P(Averaged, FactorsAreOrthonormalWhileInUse) {
  double off = 0;
  average_.visit([&](const Parameter& p, const Tensor& t) {
    if (p.orthonormal) off = std::max(off, orthogonality_residual(tiny_.bench.ctx, t));
  });
  EXPECT_GT(off, 1e-4);  // an average itself is not
  const AveragedWeights averaged(tiny_.bench.ctx, tiny_.model, average_, batches());
  for (const Parameter* p : tiny_.trained()) {
    if (!p->orthonormal) continue;
    EXPECT_LE(orthogonality_residual(tiny_.bench.ctx, p->value), 5e-6) << p->name;
  }
  const ExecContext plain = tiny_.bench.ctx.with_tape(nullptr);
  EXPECT_LE(orthogonality_residual(plain, tiny_.model.moe_layers()[0]->experts().right_factor(plain).value), 1e-5);
}

TEST_P(Averaged, OtherWeightsAreTheAverage) {
  Snapshot expected;
  average_.visit([&](const Parameter& p, const Tensor& t) {
    if (!p.orthonormal) expected[p.name] = t.clone();
  });
  const AveragedWeights averaged(tiny_.bench.ctx, tiny_.model, average_, batches());
  for (const auto& [name, value] : expected) EXPECT_TRUE(same_bits(tiny_.parameter(name).value, value)) << name;
}

TEST_P(Averaged, KeptStatisticsServeWithoutData) {
  ScratchFolder scratch;
  const ExecContext& ctx = tiny_.bench.ctx;
  Tensor expected;
  {
    const AveragedWeights averaged(ctx, tiny_.model, average_, batches());
    expected = logits();
    average_.keep_statistics(averaged.statistics());
  }
  const Tensor live = logits();
  save_average(ctx, scratch.file("ema.safetensors"), average_);
  average_.drop_statistics();
  read_average_with_statistics(ctx, scratch.path(), tiny_.model, average_);
  {
    const AveragedWeights averaged(ctx, tiny_.model, average_);
    EXPECT_TRUE(same_bits(logits(), expected));
  }
  EXPECT_TRUE(same_bits(logits(), live));
  average_.drop_statistics();
  save_average(ctx, scratch.file("ema.safetensors"), average_);
  read_average_with_statistics(ctx, scratch.path(), tiny_.model, average_);
  EXPECT_TRUE(average_.statistics().empty());
}

TEST_P(Averaged, StatisticsAreThoseOfTheBatches) {
  const AveragedWeights averaged(tiny_.bench.ctx, tiny_.model, average_, batches());
  ExecContext ctx = tiny_.bench.ctx;
  ctx.mode = Mode::eval;
  ForwardPass pass;
  tiny_.model.forward(ctx, Variable(tiny_.images), pass);
  const auto scores = to_doubles(pass.routes.at(0).scores);
  const auto mean = to_doubles(tiny_.values().at("buffer blocks.1.moe.router.score_mean"));
  const auto var = to_doubles(tiny_.values().at("buffer blocks.1.moe.router.score_var"));
  for (size_t e = 0; e < 4; ++e) {
    double sum = 0, squares = 0;
    for (size_t n = 0; n < 20; ++n) {
      sum += scores[n * 4 + e];
      squares += scores[n * 4 + e] * scores[n * 4 + e];
    }
    EXPECT_NEAR(mean[e], sum / 20, 1e-6);
    EXPECT_NEAR(var[e], squares / 20 - sum / 20 * sum / 20, 1e-6);
  }
}

INSTANTIATE_TEST_SUITE_P(Average, Averaged, ::testing::Values(Basis::leading, Basis::disjoint, Basis::untied));

}  // namespace
}  // namespace ermoe::testing
