// The breakdown of a step by families of kernels: every op that a training step runs stands in the table, the innermost op that
// does decides, and the parts add up to the step.
#include "tools/bench/families.h"

#include "core/enum_names.h"
#include "models/dual_encoder.h"
#include "models/task_loss.h"
#include "models/train_step.h"
#include "models/vit.h"
#include "tests/bench.h"
#include "tools/model_choice.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

namespace ermoe {
namespace {

struct Heard final : OpListener {
  void enter(std::string_view op) override { ops.emplace(op); }
  void leave() override {}
  std::set<std::string> ops;
};

/// The ops that one training step of `model` runs, in the memory of `bench`.
std::set<std::string> ops_of_a_step(testing::TestBench& bench, Model& model, const MicroBatch& inputs,
                                    Orthogonality orthogonality = Orthogonality::newton_schulz) {
  model.allocate(bench.ctx, DType::f32);
  model.init(bench.ctx, RngKey{1});
  Optimizer optimizer(bench.ctx, model.arena(), OptimConfig{}, stiefel_method(orthogonality));
  TrainStep train(bench.ctx, model, optimizer, nullptr, 1.0);
  Heard heard;
  bench.ctx.listener = &heard;
  train.begin(bench.ctx, 1);
  train.micro_batch(bench.ctx, inputs,
                    [](const ExecContext& c, const Variable& y, const Tensor& targets) { return task_loss(c, LossConfig{}, y, targets); });
  EXPECT_TRUE(train.finish(bench.ctx, 1e-3).accepted);
  bench.ctx.listener = nullptr;
  return heard.ops;
}

Tensor some_images(const ExecContext& ctx) { return testing::random_input(ctx, {{4, 3, 8, 8}}, DType::f32, RngKey{2}); }

std::set<std::string> ops_of_a_step(RouterKind router, Basis basis, Orthogonality orthogonality) {
  VitConfig config;
  config.image_size = 8;
  config.width = 32;
  config.heads = 2;
  config.depth = 2;
  config.moe.router = router;
  config.moe.basis = basis;
  config.moe.score = basis == Basis::leading ? Score::context_cosine : Score::subspace_cosine;
  config.moe.orthogonality = orthogonality;
  if (router != RouterKind::ermoe) {
    config.moe.expert = ExpertKind::plain;
    config.moe.basis = Basis::untied;
  }
  testing::TestBench bench;
  Vit model(config);
  const Tensor targets = testing::random_input(bench.ctx, {{4, 10}, testing::OpInput::Fill::unit}, DType::f32, RngKey{3});
  return ops_of_a_step(bench, model, {.images = some_images(bench.ctx), .targets = targets}, orthogonality);
}

/// Of two towers with experts, and captions shorter than the context.
std::set<std::string> ops_of_a_step(PairLoss loss) {
  DualConfig config;
  config.image.image_size = 8;
  config.image.width = 32;
  config.image.heads = 2;
  config.image.depth = 2;
  config.text.vocabulary = 9;
  config.text.end_token = 8;
  config.text.context = 5;
  config.text.width = 16;
  config.text.heads = 2;
  config.text.depth = 2;
  config.text.moe_layers = "every:2";
  config.retrieval.loss = loss;
  testing::TestBench bench;
  DualEncoder model(config, pair_loss(loss));
  const Tensor tokens = bench.ctx.empty({4, 4}, DType::i32);
  std::ranges::copy(std::vector{1, 2, 8, 0, 3, 4, 5, 8, 1, 8, 8, 0, 6, 7, 7, 8}, tokens.data<int32_t>());
  return ops_of_a_step(bench, model, {.images = some_images(bench.ctx), .targets = {}, .allow = {}, .tokens = tokens});
}

TEST(Families, KnowEveryOpOfATrainingStep) {
  std::set<std::string> ops;
  for (const Basis basis : {Basis::disjoint, Basis::leading, Basis::untied})
    ops.merge(ops_of_a_step(RouterKind::ermoe, basis, Orthogonality::newton_schulz));
  for (const auto name : enum_names<RouterKind>())
    ops.merge(ops_of_a_step(*parse_enum<RouterKind>(name), Basis::untied, Orthogonality::none));
  for (const PairLoss loss : {PairLoss::info_nce, PairLoss::sigmoid}) ops.merge(ops_of_a_step(loss));
  for (const char* expected : {"linear", "attention", "grouped_mlp", "materialize", "orthogonal_step", "adamw", "context_cosine",
                               "dispatch", "contrastive_loss", "sigmoid_pair_loss", "embedding", "select_tokens", "caption_ends"})
    EXPECT_TRUE(ops.contains(expected)) << expected;
  ops.erase("column_sum");  // a helper: it belongs to the op that sums
  for (const std::string& op : ops) EXPECT_TRUE(family_of_op(op).has_value()) << op;
}

TEST(Families, TheInnermostKnownOpDecides) {
  const auto family = [](const char* ops) { return family_of({.ops = ops, .name = "[fill]"}); };
  EXPECT_EQ(family("linear"), Family::dense);
  EXPECT_EQ(family("linear/column_sum"), Family::dense);
  EXPECT_EQ(family("grouped_mlp/column_sum"), Family::experts);
  EXPECT_EQ(family("materialize/linear"), Family::dense);
  EXPECT_EQ(family(""), Family::copies);
  EXPECT_EQ(family("nobody/knows"), Family::copies);
}

TEST(Families, HaveATitleEach) {
  std::set<std::string_view> titles;
  for (int i = 0; i <= static_cast<int>(Family::idle); ++i) titles.insert(title(static_cast<Family>(i)));
  EXPECT_EQ(titles.size(), static_cast<size_t>(Family::idle) + 1);
  EXPECT_FALSE(titles.contains(""));
}

TEST(BreakDown, AddsUpToTheStep) {
  const std::vector<GpuActivity> activities{{.ops = "linear", .name = "a", .start = 1, .seconds = 2},
                                            {.ops = "linear", .name = "a", .start = 4, .seconds = 1},
                                            {.ops = "cosine", .name = "b", .start = 6, .seconds = 0.5},
                                            {.ops = "", .name = "[copy]", .start = 7, .seconds = 0.25}};
  const Breakdown b = break_down(activities, 5);
  ASSERT_TRUE(b.made());
  EXPECT_DOUBLE_EQ(b.of(Family::dense), 3);
  EXPECT_DOUBLE_EQ(b.of(Family::routing), 0.5);
  EXPECT_DOUBLE_EQ(b.of(Family::copies), 0.25);
  EXPECT_DOUBLE_EQ(b.of(Family::experts), 0);
  EXPECT_DOUBLE_EQ(b.of(Family::idle), 1.25);
  EXPECT_DOUBLE_EQ(b.total(), 5);
  EXPECT_DOUBLE_EQ(b.profiled_seconds, 6.25);
  ASSERT_EQ(b.kernels.size(), 3u);
  EXPECT_EQ(b.kernels.front().name, "a");
  EXPECT_EQ(b.kernels.front().calls, 2);
}

TEST(BreakDown, CountsWhatRunsAtOnceAsBusyOnce) {
  const std::vector<GpuActivity> activities{{.ops = "linear", .name = "a", .start = 0, .seconds = 4},
                                            {.ops = "", .name = "[copy]", .start = 1, .seconds = 1},
                                            {.ops = "", .name = "[copy]", .start = 3, .seconds = 2}};
  const Breakdown b = break_down(activities, 6);
  EXPECT_DOUBLE_EQ(b.busy_seconds, 5);
  EXPECT_DOUBLE_EQ(b.of(Family::idle), 1);
}

TEST(Collectives, AreHiddenWhereOtherWorkRunsBesideThem) {
  const std::vector<GpuActivity> activities{{.ops = "linear", .name = "a", .start = 0, .seconds = 4},
                                            {.ops = "", .name = "ncclDevKernel_ReduceScatter", .start = 1, .seconds = 2},
                                            {.ops = "", .name = "ncclDevKernel_ReduceScatter", .start = 3.5, .seconds = 2},
                                            {.ops = "", .name = "ncclDevKernel_AllGather", .start = 6, .seconds = 1}};
  const std::vector<CollectiveTime> times = collectives_of(activities);
  ASSERT_EQ(times.size(), 2u);
  EXPECT_EQ(times[0].name, "ncclDevKernel_ReduceScatter");
  EXPECT_EQ(times[0].calls, 2);
  EXPECT_DOUBLE_EQ(times[0].seconds, 4);
  EXPECT_DOUBLE_EQ(times[0].hidden_seconds, 2.5);
  EXPECT_DOUBLE_EQ(times[1].seconds, 1);
  EXPECT_DOUBLE_EQ(times[1].hidden_seconds, 0);
  EXPECT_DOUBLE_EQ(break_down(activities, 7).of(Family::collectives), 5);
}

TEST(BreakDown, SaysWhereNothingWasSeen) {
  const Breakdown b = break_down({}, 1);
  EXPECT_FALSE(b.made());
  EXPECT_FALSE(b.fault.empty());
}

}  // namespace
}  // namespace ermoe
