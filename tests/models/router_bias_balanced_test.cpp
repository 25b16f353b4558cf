// Loss-free balancing: what the bias decides, what it does not, and how it moves.
#include "tests/models/tiny_training.h"

namespace ermoe::testing {
namespace {

VitConfig config_of(Gate gate, double rate = 1e-3) {
  VitConfig config = tiny_config();
  config.moe.router = RouterKind::bias_balanced;
  config.moe.gate = gate;
  config.moe.bias_rate = rate;
  return config;
}

/// A forward and a backward pass; matrices are made anew from their factors first, as a step does.
void pass(TinyModel& tiny, int64_t micro_batches = 1) {
  tiny.model.refresh(tiny.bench.ctx);
  tiny.differentiate(micro_batches);
}

std::span<double> bias_of(TinyModel& tiny) {
  for (Buffer* b : buffers_of(tiny.model))
    if (b->name == "blocks.1.moe.router.bias") return b->value.span<double>();
  fail("no bias");
}

std::vector<double> loads_of(const TinyModel& tiny) {
  std::vector<double> loads(4);
  for (const RoutingRecord& route : tiny.routes)
    for (size_t e = 0; e < 4; ++e) loads[e] += route.plan.counts.span<int32_t>()[e];
  return loads;
}

void expect_moved_against_loads(TinyModel& tiny, double rate) {
  const std::vector<double> before(bias_of(tiny).begin(), bias_of(tiny).end()), loads = loads_of(tiny);
  tiny.model.reduce_statistics(tiny.bench.ctx);
  tiny.model.accept_step(tiny.bench.ctx);
  const double mean = (loads[0] + loads[1] + loads[2] + loads[3]) / 4;
  for (size_t e = 0; e < 4; ++e) {
    const double sign = static_cast<double>(mean > loads[e]) - static_cast<double>(mean < loads[e]);
    EXPECT_DOUBLE_EQ(bias_of(tiny)[e], before[e] + rate * sign) << "expert " << e << " of load " << loads[e];
  }
}

class BiasBalanced : public ::testing::TestWithParam<Gate> {};
INSTANTIATE_TEST_SUITE_P(Router, BiasBalanced, ::testing::Values(Gate::sigmoid, Gate::softmax));

TEST_P(BiasBalanced, ChoosesByGateAndBiasAndWeighsByTheGateAlone) {
  TinyModel tiny(config_of(GetParam()));
  const std::vector<double> bias{-0.4, 0.3, 0.1, -0.2};
  std::ranges::copy(bias, bias_of(tiny).begin());
  pass(tiny);
  const RoutingRecord& route = tiny.routes[0];
  const auto gates = to_doubles(route.scores), weights = to_doubles(route.weights);
  const auto ids = route.plan.expert_ids.span<int32_t>();
  int64_t changed = 0;
  for (size_t n = 0; n < 20; ++n) {
    std::vector<size_t> by_bias{0, 1, 2, 3}, by_gate = by_bias;
    std::ranges::sort(by_bias, [&](size_t a, size_t b) { return gates[4 * n + a] + bias[a] > gates[4 * n + b] + bias[b]; });
    std::ranges::sort(by_gate, [&](size_t a, size_t b) { return gates[4 * n + a] > gates[4 * n + b]; });
    for (size_t k = 0; k < 2; ++k) {
      EXPECT_EQ(ids[2 * n + k], static_cast<int32_t>(by_bias[k]));
      EXPECT_EQ(weights[2 * n + k], gates[4 * n + by_bias[k]]);
      changed += by_bias[k] != by_gate[k];
    }
  }
  EXPECT_GT(changed, 0);  // or the bias would not have been asked
}

TEST(BiasBalancedGates, AreSigmoidsOfTheLogitsOrTheirSoftmax) {
  TinyModel sigmoid(config_of(Gate::sigmoid)), softmax(config_of(Gate::softmax));
  pass(sigmoid);
  pass(softmax);
  const auto g = to_doubles(sigmoid.routes[0].scores), p = to_doubles(softmax.routes[0].scores);
  for (size_t n = 0; n < 20; ++n) {
    // odds of a sigmoid are e^logit, and so are a softmax's but for a common factor
    double odds[4], sum = 0;
    for (size_t e = 0; e < 4; ++e) sum += odds[e] = g[4 * n + e] / (1 - g[4 * n + e]);
    for (size_t e = 0; e < 4; ++e) EXPECT_NEAR(p[4 * n + e], odds[e] / sum, 1e-13);
  }
}

TEST_P(BiasBalanced, MovesByTheSignOfMeanLessLoad) {
  TinyModel tiny(config_of(GetParam(), 0.01));
  for (int step = 0; step < 5; ++step) {
    pass(tiny);
    expect_moved_against_loads(tiny, 0.01);
  }
}

TEST_P(BiasBalanced, CountsTheLoadsOfAllMicroBatches) {
  TinyModel tiny(config_of(GetParam(), 0.01));
  pass(tiny, 4);
  ASSERT_EQ(tiny.routes.size(), 4u);
  expect_moved_against_loads(tiny, 0.01);
}

TEST(BiasBalancedLoads, LeaveOutSlotsThatNobodyFills) {
  TinyModel tiny(config_of(Gate::sigmoid, 0.01));
  tiny.allow = Tensor::zeros(tiny.bench.allocator, {20, 4}, DType::u8);
  for (int64_t n = 0; n < 20; ++n) tiny.allow.data<uint8_t>()[4 * n + (n < 8 ? 1 : n < 13 ? 2 : 3)] = 1;
  pass(tiny);
  EXPECT_EQ(loads_of(tiny), (std::vector<double>{0, 8, 5, 7}));  // of 40 slots: the mean is 5, and expert 2 has it
  expect_moved_against_loads(tiny, 0.01);
  EXPECT_EQ(bias_of(tiny)[2], 0);
}

TEST(BiasBalancedLoads, ThatAreEvenMoveNothing) {
  VitConfig config = config_of(Gate::sigmoid);
  config.moe.top_k = 4;
  TinyModel tiny(config);
  pass(tiny);
  tiny.model.accept_step(tiny.bench.ctx);
  for (double b : bias_of(tiny)) EXPECT_EQ(b, 0);
}

TEST(BiasBalancedSteps, ThatAreRefusedOrEvaluateMoveNothing) {
  TinyModel tiny(config_of(Gate::sigmoid));
  const auto expect_nothing = [&](const char* what) {
    for (double b : bias_of(tiny)) EXPECT_EQ(b, 0) << what;
  };
  pass(tiny);
  tiny.model.discard_step();
  tiny.model.accept_step(tiny.bench.ctx);
  expect_nothing("a refused step");
  ExecContext ctx = tiny.bench.ctx;
  ctx.mode = Mode::eval;
  ForwardPass evaluation;
  tiny.model.refresh(ctx);
  tiny.model.forward(ctx, Variable(tiny.images), evaluation);
  tiny.model.accept_step(ctx);
  expect_nothing("an evaluation");
  pass(tiny);
  tiny.model.moe_layers()[0]->router().replace_statistics(tiny.bench.ctx);
  tiny.model.accept_step(tiny.bench.ctx);
  expect_nothing("a pass for averaged weights");
}

TEST_P(BiasBalanced, EvensOutLoadsWithoutTouchingAWeight) {
  TinyModel tiny(config_of(GetParam(), 0.004));
  const Tensor weight = tiny.parameter("blocks.1.moe.router.weight").value;
  fill(weight.slice(0, 1), 0.0);  // the same logit for all tokens: all or none of them choose this expert
  const auto spread = [&] {
    const auto loads = loads_of(tiny);
    return std::ranges::max(loads) - std::ranges::min(loads);
  };
  pass(tiny);
  const double first = spread();
  std::vector<double> last;
  for (int step = 0; step < 400; ++step) {
    pass(tiny);
    tiny.model.accept_step(tiny.bench.ctx);
    if (step >= 350) last.push_back(spread());
  }
  double mean = 0;
  for (double s : last) mean += s / static_cast<double>(last.size());
  EXPECT_LT(mean, 0.6 * first);
}

}  // namespace
}  // namespace ermoe::testing
