// Schedules, layer decay, weight decay, and the promise that factors stay orthonormal over ten thousand optimizer steps.
#include "models/optim.h"

#include "autograd/memory/parameter_arena.h"

#include "ops/orthogonal_step.h"
#include "tests/models/tiny_training.h"

#include <omp.h>

namespace ermoe::testing {
namespace {

constexpr int64_t total = 100;

std::vector<double> rates(const OptimConfig& config) {
  std::vector<double> lr;
  for (int64_t step = 0; step < total; ++step) lr.push_back(learning_rate(config, step, total));
  return lr;
}

class EverySchedule : public ::testing::TestWithParam<Schedule> {};

TEST_P(EverySchedule, WarmsUpLinearlyFromNearZeroToThePeak) {
  const std::vector<double> lr = rates({.lr = 2e-3, .schedule = GetParam(), .warmup_steps = 20});
  for (size_t step = 0; step < 20; ++step) EXPECT_NEAR(lr[step], 2e-3 * static_cast<double>(step + 1) / 20, 1e-18);
  EXPECT_NEAR(lr[20], 2e-3, 1e-4);  // it goes on from there without a jump
}

TEST_P(EverySchedule, NeverRisesAfterWarmUpAndStaysInItsBounds) {
  for (int64_t warmup : {0, 1, 20})
    for (int64_t cooldown : {0, 1, 30}) {
      const OptimConfig config{.lr = 2e-3, .min_lr = 1e-5, .schedule = GetParam(), .warmup_steps = warmup, .cooldown_steps = cooldown};
      const std::vector<double> lr = rates(config);
      for (size_t step = 0; step < lr.size(); ++step) {
        EXPECT_LE(lr[step], 2e-3 * (1 + 1e-12));
        EXPECT_GE(lr[step], 1e-5 * (1 - 1e-12));
        if (static_cast<int64_t>(step) > warmup) {
          EXPECT_LE(lr[step], lr[step - 1] * (1 + 1e-12)) << "step " << step;
        }
      }
    }
}

TEST_P(EverySchedule, CoolsDownLinearlyToTheMinimum) {
  const OptimConfig config{.lr = 2e-3, .min_lr = 1e-5, .schedule = GetParam(), .cooldown_steps = 25};
  EXPECT_NEAR(learning_rate(config, total - 1, total), 1e-5, 1e-18);
  if (GetParam() == Schedule::constant) {
    const std::vector<double> lr = rates(config);
    EXPECT_EQ(lr[74], 2e-3);
    for (size_t step = 75; step < 100; ++step) EXPECT_NEAR(lr[step - 1] - lr[step], (2e-3 - 1e-5) / 25, 1e-15) << step;
  }
}

INSTANTIATE_TEST_SUITE_P(Optim, EverySchedule, ::testing::Values(Schedule::cosine, Schedule::linear, Schedule::constant, Schedule::rsqrt));

TEST(Schedule, ShapesAreWhatTheirNamesSay) {
  const auto at = [](Schedule schedule, int64_t step) {
    return learning_rate({.lr = 2e-3, .min_lr = 4e-4, .schedule = schedule, .warmup_steps = 10}, step, 110);
  };
  EXPECT_NEAR(at(Schedule::cosine, 60), 1.2e-3, 1e-15);  // half-way
  EXPECT_NEAR(at(Schedule::cosine, 10), 2e-3, 1e-15);
  EXPECT_NEAR(at(Schedule::cosine, 110), 4e-4, 1e-15);
  EXPECT_NEAR(at(Schedule::cosine, 35), 4e-4 + 1.6e-3 * 0.5 * (1 + std::sqrt(0.5)), 1e-15);
  EXPECT_NEAR(at(Schedule::linear, 60), 1.2e-3, 1e-15);
  EXPECT_NEAR(at(Schedule::linear, 35), 1.6e-3, 1e-15);
  EXPECT_EQ(at(Schedule::constant, 109), 2e-3);
  EXPECT_NEAR(at(Schedule::rsqrt, 39), 1e-3, 1e-15);  // the 40th step: four times the warm-up, half the rate
  EXPECT_NEAR(at(Schedule::rsqrt, 89), 2e-3 / 3, 1e-15);
}

TEST(Optimizer, WeightDecayIsForMatricesAlone) {
  TinyModel tiny;
  for (const Parameter* p : tiny.trained()) {
    const bool dense_matrix = p->role == Parameter::Role::direct && p->name.ends_with("weight") && p->shape.rank() >= 2;
    EXPECT_EQ(p->decay, dense_matrix) << p->name;
  }
  VitConfig config = tiny_config();
  config.moe.decay_scales = true;
  TinyModel decaying(config);
  EXPECT_TRUE(decaying.parameter("blocks.1.moe.experts.s1").decay);
  EXPECT_FALSE(decaying.parameter("blocks.1.moe.experts.U1").decay);
}

TEST(Optimizer, WeightDecayShrinksWhatHasNoGradient) {
  TinyModel tiny;
  const OptimConfig config{.lr = 0.1, .weight_decay = 0.5};
  Optimizer optimizer(tiny.bench.ctx, tiny.model.arena(), config, StiefelMethod::newton_schulz);
  const Snapshot before = tiny.values();
  tiny.model.arena().take_factor_gradients(tiny.bench.allocator);
  for (Parameter* p : tiny.trained()) fill(p->grad, 0);
  optimizer.step(tiny.bench.ctx, config.lr, 1.0);
  for (const Parameter* p : tiny.trained()) {
    const auto was = to_doubles(before.at(p->name)), is = to_doubles(p->value);
    const double factor = p->decay ? 1 - 0.1 * 0.5 : 1;
    for (size_t i = 0; i < is.size(); ++i) ASSERT_NEAR(is[i], factor * was[i], 1e-14) << p->name;
  }
}

TEST(Optimizer, LearningRatesFollowDepthAndKind) {
  TinyModel tiny;
  tiny.model.scale_learning_rates({.layer_decay = 0.5, .factor_lr = 0.25});
  const auto scale = [&](const char* name) { return tiny.parameter(name).lr_scale; };
  EXPECT_FLOAT_EQ(scale("head.weight"), 1);
  EXPECT_FLOAT_EQ(scale("blocks.1.attn.qkv.weight"), 0.5);
  EXPECT_FLOAT_EQ(scale("blocks.1.moe.experts.s1"), 0.5);
  EXPECT_FLOAT_EQ(scale("blocks.1.moe.experts.U1"), 0.125);
  EXPECT_FLOAT_EQ(scale("blocks.0.attn.qkv.weight"), 0.25);
  EXPECT_FLOAT_EQ(scale("patch_embed.proj.weight"), 0.125);
}

TEST(Optimizer, LayerDecayScalesTheStepOfAParameter) {
  TinyModel plain, scaled;
  const OptimConfig config{.lr = 1e-3, .weight_decay = 0, .clip = 0};
  for (Parameter* p : scaled.trained()) p->lr_scale = 0.25f;
  const Snapshot before = plain.values();
  TinyTraining(plain, config).step();
  TinyTraining(scaled, config).step();
  for (const Parameter* p : plain.trained()) {
    if (p->orthonormal) continue;  // retracted: the same only to first order
    const auto was = to_doubles(before.at(p->name)), full = to_doubles(p->value), quarter = to_doubles(scaled.parameter(p->name).value);
    for (size_t i = 0; i < was.size(); ++i) ASSERT_NEAR(quarter[i] - was[i], 0.25 * (full[i] - was[i]), 1e-14) << p->name;
  }
  const Tensor& start = before.at("blocks.1.moe.experts.U1");
  const double full = largest_difference(plain.parameter("blocks.1.moe.experts.U1").value, start);
  EXPECT_NEAR(largest_difference(scaled.parameter("blocks.1.moe.experts.U1").value, start), 0.25 * full, 0.01 * full);
}

TEST(Optimizer, MatricesOfSeveralLayersStepTogetherAsOneByOne) {
  for (const Basis basis : {Basis::leading, Basis::disjoint, Basis::untied}) {
    VitConfig config = tiny_config();
    config.moe.layers = "0,1";
    config.moe.basis = basis;
    TinyModel alone(config), together(config);
    Optimizer one_by_one(alone.bench.ctx, alone.model.arena(), {}, StiefelMethod::newton_schulz, 0);
    Optimizer batched(together.bench.ctx, together.model.arena(), {}, StiefelMethod::newton_schulz, 1 << 20);
    EXPECT_LT(batched.batches(), one_by_one.batches());
    for (int step = 0; step < 3; ++step) {
      for (TinyModel* tiny : {&alone, &together}) {
        tiny->model.refresh(tiny->bench.ctx);
        tiny->differentiate();
      }
      one_by_one.step(alone.bench.ctx, 1e-2, 1.0);
      batched.step(together.bench.ctx, 1e-2, 1.0);
    }
    const Snapshot a = alone.values(), b = together.values();
    for (const auto& [name, value] : a) EXPECT_LE(largest_difference(value, b.at(name)), 1e-12) << name;
  }
}

/// Whatever steps or replaces the factors: each twin is its value rounded, of frozen factors and of disjoint bases too.
TEST(Optimizer, TwinsFollowTheFactors) {
  for (const Basis basis : {Basis::leading, Basis::disjoint, Basis::untied})
    for (const Orthogonality mode : {Orthogonality::newton_schulz, Orthogonality::gram_schmidt, Orthogonality::cayley}) {
      VitConfig config = tiny_config();
      config.moe.layers = "0,1";
      config.moe.basis = basis;
      config.moe.orthogonality = mode;
      TinyModel tiny(config, DType::f32);
      tiny.model.move_to(tiny.bench.ctx, DType::bf16);
      tiny.parameter("blocks.0.moe.experts.U2").frozen = true;
      const auto expect_twins = [&](const char* when) {
        int64_t twins = 0;
        for (const Parameter* p : tiny.trained()) {
          EXPECT_EQ(p->twin.defined(), p->orthonormal) << p->name;
          if (!p->twin.defined()) continue;
          twins += 1;
          EXPECT_EQ(to_doubles(p->twin), bf16_values(p->value)) << p->name << " " << when;
        }
        EXPECT_GE(twins, 8);
      };
      expect_twins("before");
      Optimizer optimizer(tiny.bench.ctx, tiny.model.arena(), {}, stiefel_method(mode), 1 << 20);
      for (uint64_t step = 0; step < 2; ++step) {
        tiny.model.arena().take_factor_gradients(tiny.bench.allocator);
        for (const Parameter* p : tiny.trained()) fill_normal(p->grad, 1, key_of(RngKey{step}, p->name));
        const Snapshot before = tiny.values();
        optimizer.step(tiny.bench.ctx, 1e-2, 1.0);
        tiny.model.after_step(tiny.bench.ctx);
        EXPECT_GT(largest_difference(tiny.parameter("blocks.1.moe.experts.V1").value, before.at("blocks.1.moe.experts.V1")), 1e-3);
        expect_twins("after a step");
      }
    }
}

TEST(Optimizer, StateIsNamedAndLeavesOutWhatIsFrozen) {
  TinyModel tiny;
  tiny.parameter("cls_token").frozen = true;
  Optimizer optimizer(tiny.bench.ctx, tiny.model.arena(), {}, StiefelMethod::newton_schulz);
  std::vector<std::string> names;
  optimizer.visit_state([&](const std::string& name, const Tensor& t) {
    names.push_back(name);
    EXPECT_EQ(largest_of(t), 0);
  });
  EXPECT_EQ(names.size(), 2 * (tiny.trained().size() - 1));
  EXPECT_EQ(std::ranges::count(names, "blocks.1.moe.experts.V2.v"), 1);
  EXPECT_EQ(std::ranges::count(names, "cls_token.m"), 0);
}

/// Factors of an expert of width 64, without a model around them: gradients come from a bank of random ones whose mix turns
/// slowly, as the mean gradient of training does, under noise.
class Factors {
 public:
  explicit Factors(const ExecContext& ctx) {
    tall_.name = "tall";
    tall_.shape = {256, 64};
    square_.name = "square";
    square_.shape = {64, 64};
    for (Parameter* p : all()) {
      p->role = Parameter::Role::factor;
      p->orthonormal = true;
    }
    arena_ = std::make_unique<ParameterArena>(*ctx.allocator, DType::f32, std::vector<Parameter*>{&tall_, &square_});
    for (Parameter* p : all()) {
      copy(random_input(ctx, {p->shape}, DType::f32, key_of(RngKey{1}, p->name)), p->value);
      retract(ctx, p->value, StiefelMethod::gram_schmidt);
    }
    arena_->take_factor_gradients(*ctx.allocator);
    for (Parameter* p : all())
      for (uint64_t i = 0; i < 9; ++i) bank_[p].push_back(random_input(ctx, {p->shape}, DType::f32, key_of(RngKey{2}.fold(i), p->name)));
  }

  void draw_gradient(int64_t step) {
    const auto t = static_cast<double>(step);
    const auto c = static_cast<float>(std::cos(t / 700)), s = static_cast<float>(std::sin(t / 700));
    for (const Parameter* p : all()) {
      const std::vector<Tensor>& bank = bank_.at(p);
      const float *a = bank[0].data<float>(), *b = bank[1].data<float>();
      const float* noise = bank[2 + static_cast<size_t>(step * step % 7)].data<float>();
      float* g = p->grad.data<float>();
#pragma omp simd
      for (int64_t i = 0; i < p->grad.numel(); ++i) g[i] = c * a[i] + s * b[i] + 2 * noise[i];
    }
  }

  std::array<Parameter*, 2> all() { return {&tall_, &square_}; }
  ParameterArena& arena() { return *arena_; }

 private:
  Parameter tall_, square_;
  std::unique_ptr<ParameterArena> arena_;
  std::map<const Parameter*, std::vector<Tensor>> bank_;
};

class TenThousandOptimizerSteps : public ::testing::TestWithParam<StiefelMethod> {};

TEST_P(TenThousandOptimizerSteps, KeepFactorsOrthonormal) {
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);  // small products: threads would only wait for one another
  TestBench bench;
  Factors factors(bench.ctx);
  Optimizer optimizer(bench.ctx, factors.arena(), {.lr = 1e-3}, GetParam());
  double worst = 0;
  for (int64_t step = 0; step < 10000 && worst <= 5e-6; ++step) {
    factors.draw_gradient(step);
    optimizer.step(bench.ctx, 1e-3, 1.0);
    for (const Parameter* p : factors.all()) {
      const double residual = orthogonality_residual(bench.ctx, p->value);
      if (!(residual <= worst)) worst = residual;
    }
    ASSERT_LE(worst, 5e-6) << "step " << step;
  }
  RecordProperty("worst", fmt::format("{:.2e}", worst));
  omp_set_num_threads(threads);
}

std::string name_of_method(const ::testing::TestParamInfo<StiefelMethod>& method) {
  constexpr const char* names[] = {"newton_schulz", "gram_schmidt", "cholesky_qr", "cayley"};
  return names[static_cast<int>(method.param)];
}

INSTANTIATE_TEST_SUITE_P(Optim, TenThousandOptimizerSteps,
                         ::testing::Values(StiefelMethod::newton_schulz, StiefelMethod::gram_schmidt, StiefelMethod::cholesky_qr,
                                           StiefelMethod::cayley),
                         name_of_method);

}  // namespace
}  // namespace ermoe::testing
