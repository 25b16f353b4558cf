// What the benchmarks report is what they claim: the workloads' costs, phases that add up, a verdict on orthogonality.
#include "tools/bench/layer_bench.h"
#include "tools/bench/op_bench.h"
#include "tools/bench/orthogonality_bench.h"
#include "tools/bench/step_bench.h"

#include "core/enum_names.h"
#include "models/task_loss.h"
#include "tests/bench.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

namespace ermoe {
namespace {

double useful_gflops_per_image(Workload workload) {
  const Engine engine(1, 1, DeviceChoice::cpu);
  const ModelSummary cost = make_task(engine, {.workload = workload}, 2).cost;
  return 3 * (cost.forward_flops - cost.scoring_flops) / 1e9;
}

TEST(StepBench, WorkloadsCostWhatThePerformanceTableSays) {
  EXPECT_NEAR(useful_gflops_per_image(Workload::c10), 11.28, 0.005);
  EXPECT_NEAR(useful_gflops_per_image(Workload::s16), 35.96, 0.005);
  EXPECT_NEAR(useful_gflops_per_image(Workload::b16), 138.85, 0.01);
  EXPECT_NEAR(useful_gflops_per_image(Workload::ba), 387.36, 0.03);  // the table counts the class token as a patch
}

/// The images' tower, whose head makes 512 numbers and not 1000, and the text's: products 24 W D², attention 4 W² D a block, projection.
TEST(StepBench, TwoTowersCostWhatBothDo) {
  const double text = 12 * (24 * 77 * 512.0 * 512 + 4 * 77 * 77 * 512.0) + 2 * 512 * 512, head = 2 * 768 * (512 - 1000.0);
  EXPECT_NEAR(useful_gflops_per_image(Workload::clip), useful_gflops_per_image(Workload::b16) + 3 * (text + head) / 1e9, 1e-6);
}

/// As many parameters as tools/torch_clip_peer.py has, which they are compared with; its experts have no biases.
TEST(StepBench, TwoTowersAreThoseOfTheirOpponent) {
  const Engine engine(1, 1, DeviceChoice::cpu);
  const auto parameters = [&](BenchLayer layer) {
    return make_task(engine, {.workload = Workload::clip, .layer = layer}, 1).cost.parameters;
  };
  EXPECT_EQ(parameters(BenchLayer::dense), 149619969);
  EXPECT_EQ(parameters(BenchLayer::ermoe), 404474625 + 6 * 8 * (3072 + 768));
}

/// Whole steps, as they are timed: of random pairs the loss begins near that of guessing, and both towers' work is counted.
TEST(StepBench, TwoTowersTakeSteps) {
  for (const BenchLayer layer : {BenchLayer::ermoe, BenchLayer::dense}) {
    Engine engine(1, 1, DeviceChoice::cpu);
    const StepBenchOptions options{.what = {.workload = Workload::clip_tiny, .layer = layer}, .batch = 8, .steps = 2, .warmup = 0};
    const StepBenchResult result = StepBench(engine, options).run();
    EXPECT_NEAR(result.loss, std::log(8), 3) << enum_name(layer);  // scaled by 14
    EXPECT_GT(result.images_per_second, 0);
    const ModelSummary cost = make_task(engine, options.what, 8).cost;
    EXPECT_DOUBLE_EQ(result.useful_flops, 3 * 8 * (cost.forward_flops - cost.scoring_flops));
    EXPECT_EQ(result.parameters, cost.parameters);
    EXPECT_EQ(cost.scoring_flops > 0, layer == BenchLayer::ermoe);
  }
}

/// Every caption has an end token behind its first two places, and no id is outside of the vocabulary: a GPU would not look.
TEST(StepBench, MadeCaptionsEnd) {
  const Engine engine(1, 1, DeviceChoice::cpu);
  const Tensor tokens = make_task(engine, {.workload = Workload::clip_tiny}, 200).batch.tokens;
  const auto ids = tokens.span<int32_t>();
  std::set<int64_t> ends;
  for (int64_t b = 0; b < 200; ++b) {
    const auto caption = ids.subspan(static_cast<size_t>(9 * b), 9);
    EXPECT_EQ(std::ranges::count(caption, 99), 1);
    ends.insert(std::ranges::find(caption, 99) - caption.begin());
  }
  EXPECT_EQ(ends, (std::set<int64_t>{2, 3, 4, 5, 6, 7, 8}));
  EXPECT_GE(std::ranges::min(ids), 1);
}

TEST(StepBench, PhasesOfAStepAddUpToIt) {
  testing::TestBench bench;
  VitConfig config;
  config.image_size = 8;
  config.width = 32;
  config.heads = 2;
  config.depth = 2;
  Vit model(config);
  model.allocate(bench.ctx, DType::f32);
  model.init(bench.ctx, RngKey{1});
  const OptimConfig optim;
  Optimizer optimizer(bench.ctx, model.arena(), optim, StiefelMethod::newton_schulz);
  TrainStep train(bench.ctx, model, optimizer, nullptr, 1.0);
  const Tensor images = testing::random_input(bench.ctx, {{4, 3, 8, 8}}, DType::f32, RngKey{2});
  const Tensor targets = testing::random_input(bench.ctx, {{4, 10}, testing::OpInput::Fill::unit}, DType::f32, RngKey{3});

  Stopwatch watch;
  train.begin(bench.ctx, 2);
  for (int micro = 0; micro < 2; ++micro)
    train.micro_batch(bench.ctx, images, [&](const ExecContext& c, const Variable& y) { return task_loss(c, LossConfig{}, y, targets); });
  const StepReport report = train.finish(bench.ctx, 1e-3);
  const double whole = watch.lap();

  ASSERT_TRUE(report.accepted) << report.fault;
  const StepTimes& t = report.times;
  for (const double phase : {t.forward, t.backward, t.pull_back, t.optimizer, t.orthogonal, t.refresh}) EXPECT_GT(phase, 0);
  EXPECT_LE(t.total(), whole);
  EXPECT_GT(t.total(), 0.5 * whole);
}

TEST(TimingOf, KnowsMiddleAndSpread) {
  const Timing odd = timing_of({5, 1, 2, 4, 3});
  EXPECT_DOUBLE_EQ(odd.median, 3);
  EXPECT_DOUBLE_EQ(odd.min, 1);
  EXPECT_DOUBLE_EQ(odd.max, 5);
  EXPECT_DOUBLE_EQ(odd.spread, 2.0 / 3);  // quartiles 2 and 4
  EXPECT_DOUBLE_EQ(timing_of({4, 1, 3, 2}).median, 2.5);
  EXPECT_DOUBLE_EQ(timing_of({7}).spread, 0);
}

TEST(TimeRuns, LeavesTheWarmUpOut) {
  const Engine engine(1, 1, DeviceChoice::cpu);
  WorkClock clock(engine);
  int prepared = 0, timed = 0;
  const Timing t = time_runs(
      clock, {.warmup = 3, .runs = 4}, [&] { ++prepared; }, [&] { ++timed; });
  EXPECT_EQ(prepared, 7);
  EXPECT_EQ(timed, 7);
  EXPECT_LE(t.min, t.median);
  EXPECT_LE(t.median, t.max);
}

/// Each op at the shapes of a tiny batch, both ways: work is counted, results have shapes.
TEST(OpBench, RunsEveryOp) {
  const Engine engine(1, 1, DeviceChoice::cpu);
  OpOptions options;
  options.batch = 1;
  std::set<std::string> names;
  const ExecContext& ctx = engine.ctx;
  for_each_op(engine, options, [&](const OpCase& op) {
    names.insert(op.name);
    EXPECT_GT(op.work, 0) << op.name;
    if (op.backward_work == 0) return;
    Tape tape;
    std::vector<Variable> leaves;
    for (const Tensor& input : op.inputs) leaves.push_back(tape.leaf(input));
    EXPECT_TRUE(op.run(ctx.with_tape(&tape), leaves).defined()) << op.name;
    EXPECT_GT(tape.size(), leaves.size()) << op.name;
  });
  for (const char* op : {"linear",          "mlp",         "attention",    "patch_embed", "layer_norm",   "add_layer_norm", "gelu",
                         "grouped_linear",  "grouped_mlp", "dispatch",     "combine",     "router_score", "select",         "plan",
                         "combine_weights", "materialize", "stiefel_step", "project_off", "adamw",        "cross_entropy"})
    EXPECT_TRUE(names.contains(op)) << op;
}

TEST(OpBench, TwoTowersAddTheTextTowersOps) {
  const Engine engine(1, 1, DeviceChoice::cpu);
  OpOptions options;
  options.batch = 2;
  options.workload = Workload::clip_tiny;
  std::set<std::string> shapes;
  const ExecContext& ctx = engine.ctx;
  for_each_op(engine, options, [&](const OpCase& op) {
    shapes.insert(op.name + " " + op.shapes);
    if (op.name != "embedding" && op.name != "contrastive_loss" && op.name != "attention") return;
    Tape tape;
    std::vector<Variable> leaves;
    for (const Tensor& input : op.inputs) leaves.push_back(tape.leaf(input));
    EXPECT_TRUE(op.run(ctx.with_tape(&tape), leaves).defined()) << op.name;
  });
  for (const char* op : {"attention B 2 T 5 H 2 Dh 16", "attention B 2 T 9 H 2 Dh 8 causal", "embedding 18 of (100, 16)",
                         "contrastive_loss (2, 16)", "mlp (18, 16) by 64", "linear (18, 16) to 48"})
    EXPECT_TRUE(shapes.contains(op)) << op;
}

TEST(OpBench, AFilterNamesOneOp) {
  const Engine engine(1, 1, DeviceChoice::cpu);
  OpOptions options;
  options.batch = 1;
  options.only = "gelu";
  int visits = 0;
  for_each_op(engine, options, [&](const OpCase& op) {
    ++visits;
    EXPECT_EQ(op.name, "gelu");
    const OpResult result = OpBench(engine, 0).run(op);
    EXPECT_GT(result.forward.median, 0);
    EXPECT_GT(result.backward.median, 0);
  });
  EXPECT_EQ(visits, 1);
}

/// Both ways: each weight that the layer reads has a gradient, of every expert's rows.
TEST(LayerBench, GoesForwardAndBack) {
  Engine engine(1, 1, DeviceChoice::cpu);
  LayerBenchOptions options;
  options.workload = Workload::c10;
  options.batch = 1;
  LayerBench bench(engine, options);
  bench.pass();
  MoeLayer& layer = *bench.model().moe_layers().front();
  int gradients = 0;
  for (const Parameter* p : parameters_of(layer.experts())) {
    if (p->role == Parameter::Role::factor) continue;  // of which the matrices are made, outside of the layer's pass
    EXPECT_TRUE(p->has_grad) << p->name;
    const auto values = testing::to_doubles(p->grad);
    EXPECT_TRUE(std::ranges::any_of(values, [](double v) { return v != 0; })) << p->name;
    ++gradients;
  }
  EXPECT_EQ(gradients, 4);  // two matrices, two biases
}

TEST(LayerBench, OneRankKeepsItsRows) {
  Engine engine(1, 1, DeviceChoice::cpu);
  LayerBenchOptions options;
  options.workload = Workload::c10;
  options.layer = BenchLayer::linear;
  options.batch = 1;
  options.steps = 2;
  options.warmup = 1;
  const LayerBenchResult result = LayerBench(engine, options).run();
  EXPECT_EQ(result.tokens, 65);  // 8 x 8 patches and the class token
  EXPECT_EQ(result.slots, 130);  // two experts a token
  EXPECT_EQ(result.most_rows, 130);
  EXPECT_EQ(result.sent_bytes, 0);
  EXPECT_FALSE(result.recorded);
  EXPECT_GT(result.pass.median, 0);
}

TEST(LayerBench, ADenseLayerIsNone) {
  Engine engine(1, 1, DeviceChoice::cpu);
  LayerBenchOptions options;
  options.layer = BenchLayer::dense;
  EXPECT_THROW(LayerBench(engine, options), InputError);
}

TEST(OrthogonalityBench, EveryMethodKeepsThePromise) {
  const Engine engine(1, 1, DeviceChoice::cpu);
  for (const auto method : {Orthogonality::newton_schulz, Orthogonality::gram_schmidt, Orthogonality::cholesky_qr, Orthogonality::cayley}) {
    OrthogonalityOptions options;
    options.width = 24;
    options.experts = 2;
    options.method = method;
    options.steps = 40;
    const OrthogonalityResult result = bench_orthogonality(engine, options);
    EXPECT_TRUE(result.kept()) << result.worst;
    EXPECT_GT(result.worst, 0);  // float factors are never exact
    EXPECT_GT(result.worst_step, 0);
  }
}

TEST(OrthogonalityBench, ANaNBreaksThePromise) {
  OrthogonalityResult result;
  result.worst = NAN;
  EXPECT_FALSE(result.kept());
}

}  // namespace
}  // namespace ermoe
