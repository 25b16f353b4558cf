#include "tests/ranks/dual_training.h"

#include "ops/multiply.h"
#include "tests/models/dual_fixture.h"

#include <cstdio>
#include <optional>

namespace ermoe::testing {
namespace {

constexpr int64_t steps = 10, batch = 10;  // which two, three and four ranks share unevenly
constexpr double tolerance = 1e-12;

/// A loss of each pair by itself, so that ranks have nothing to tell each other: which of its products is the caption's own.
Variable loss_of_each_pair(const ExecContext& ctx, const Pairs& pairs, const Tensor& targets) {
  const Shape shape = pairs.image.shape();
  const Variable products = reshape(ctx, multiply(ctx, pairs.image, pairs.text), {shape.numel(), 1});
  const Variable logits = matmul(ctx, products, reshape(ctx, pairs.log_scale, {1, 1}));
  return cross_entropy(ctx, reshape(ctx, logits, shape), targets);
}

/// A model that takes this rank's part of each step's images and captions, and of the experts.
class Training {
 public:
  explicit Training(const std::function<void(ExecContext&)>& join)
      : model_(config(), [this](const ExecContext& ctx, const Pairs& pairs) { return loss_of_each_pair(ctx, pairs, targets_); }) {
    model_.allocate(bench_.ctx, DType::f64);
    model_.init(bench_.ctx, RngKey{1});
    if (join) {
      join(bench_.ctx);
      model_.move_to(bench_.ctx, DType::f64);
    }
    ExecContext& ctx = bench_.ctx;
    ctx.part = part_of_batch(batch, ctx.comm->rank(), ctx.comm->size());
    optimizer_.emplace(ctx, model_.arena(), OptimConfig{}, StiefelMethod::newton_schulz);
    step_.emplace(ctx, model_, *optimizer_, nullptr, 1.0);
  }

  StepReport step(uint64_t number) {
    const ExecContext& ctx = bench_.ctx;
    const RngKey key = RngKey{11}.fold(number);
    const auto own = [&](const Tensor& all) { return all.slice(ctx.part.first, ctx.part.first + ctx.part.count); };
    std::vector<int32_t> words;
    for (int64_t i = 0; i < batch * 7; ++i) {
      const bool last = i % 7 == 2 + i / 7 % 5;  // captions of different lengths
      words.push_back(last ? 28 : static_cast<int32_t>(uniform_int(key, static_cast<uint64_t>(i), 28)));
    }
    targets_ = own(random_input(ctx, {{batch, 6}, OpInput::Fill::unit}, DType::f64, key.fold(1)));
    step_->begin(ctx, 1);
    step_->micro_batch(ctx.with_rng(RngKey{3}),
                       {.images = own(random_input(ctx, {{batch, 3, 8, 8}}, DType::f64, key.fold(2))),
                        .targets = {},
                        .allow = {},
                        .tokens = own(Tensor::from<int32_t>(bench_.allocator, {batch, 7}, words))},
                       {});
    return step_->finish(ctx, 1e-3);
  }

  /// Largest distance of this rank's weights and statistics from those of `other`, which has all, each relative to its norm.
  double distance(Training& other) {
    double worst = 0;
    std::map<std::string, Tensor> whole;
    for (const Parameter* p : parameters_of(other.model_)) whole[p->name] = p->value;
    for (const Parameter* mine : parameters_of(model_)) {
      const Parameter& p = *mine;
      if (p.role == Parameter::Role::derived || p.shape.numel() == 0) continue;
      const Tensor& all = whole.at(p.name);
      const Tensor part = p.experts_of_all > 0 ? all.slice(p.expert_offset, p.expert_offset + p.shape[0]) : all;
      worst = std::max(worst, relative(p.value, part, p.name.ends_with("qkv.bias")));
    }
    const auto a = buffers_of(model_), b = buffers_of(other.model_);
    for (size_t i = 0; i < a.size(); ++i) worst = std::max(worst, relative(a[i]->value, b[i]->value, false));
    return worst;
  }

 private:
  static DualConfig config() {
    DualConfig c = small_dual("1", "0,1");
    c.image.dropout = 0.1;
    return c;
  }

  /// A key's bias adds the same to all scores of a softmax: its gradient is rounding, which Adam makes steps of.
  static double relative(const Tensor& a, const Tensor& b, bool with_keys) {
    const auto x = to_doubles(a), y = to_doubles(b);
    double apart = 0, size = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      if (with_keys && i >= x.size() / 3 && i < 2 * x.size() / 3) continue;
      apart += (x[i] - y[i]) * (x[i] - y[i]);
      size += y[i] * y[i];
    }
    const double d = std::sqrt(apart) / std::max(std::sqrt(size), 1e-3);
    return std::isnan(d) ? INFINITY : d;
  }

  TestBench bench_;
  Tensor targets_;  // (b, P) of the step
  DualEncoder model_;
  std::optional<Optimizer> optimizer_;
  std::optional<TrainStep> step_;
};

double sum_over(Communicator& world, double value) {
  CachingAllocator memory(make_host_source());
  const Tensor t = Tensor::from<double>(memory, {1}, std::vector<double>{value});
  world.all_reduce(t, ReduceOp::sum);
  return t.data<double>()[0];
}

}  // namespace

bool dual_training_agrees(Communicator& world, Communicator& experts, Communicator& replicas) {
  Training alone({}), shared([&](ExecContext&ctx) {
    ctx.comm = &world;
    ctx.expert_ranks = &experts;
    ctx.replica_ranks = &replicas;
  });
  double worst = 0;
  for (uint64_t i = 0; i < steps; ++i) {
    const StepReport want = alone.step(i), got = shared.step(i);
    const double apart = std::max(std::abs(sum_over(world, got.loss) / want.loss - 1), std::abs(got.grad_norm / want.grad_norm - 1));
    worst = want.accepted && got.accepted && !std::isnan(apart) ? std::max(worst, apart) : INFINITY;
  }
  const double weights = shared.distance(alone);
  const bool good = sum_over(world, std::max(worst, weights) <= tolerance ? 0.0 : 1.0) == 0;
  if (world.rank() == 0)
    std::printf("%s  dual encoder: losses and norms within %.1e, weights within %.1e\n", good ? "ok    " : "FAILED", worst, weights);
  return good;
}

}  // namespace ermoe::testing
