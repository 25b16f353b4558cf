// Experts that are closed to a batch while training.
#include "tests/models/tiny_training.h"

#include <set>

namespace ermoe::testing {
namespace {

VitConfig config_of(RouterKind router) {
  VitConfig config = tiny_config();
  config.moe.router = router;
  config.moe.top_k = 1;
  config.moe.combine = Combine::raw;
  config.moe.expert_dropout = 0.5;
  config.moe.expert_clusters = 2;
  return config;
}

std::vector<int32_t> loads_of(TinyModel& tiny, RngKey key, Mode mode, const Tensor& allow = {}) {
  ExecContext ctx = tiny.bench.ctx.with_rng(key);
  ctx.mode = mode;
  ForwardPass pass;
  pass.allow = allow;
  tiny.model.forward(ctx, Variable(tiny.images), pass);
  tiny.model.discard_step();
  return to_vector<int32_t>(pass.routes.at(0).plan.counts);
}

class ExpertDropout : public ::testing::TestWithParam<RouterKind> {};

TEST_P(ExpertDropout, ClosesOneOfEachClusterWhileTraining) {
  TinyModel tiny(config_of(GetParam()));
  std::set<std::pair<bool, bool>> first_closed;
  for (uint64_t key = 0; key < 12; ++key) {
    const auto loads = loads_of(tiny, RngKey{key}, Mode::train);
    EXPECT_EQ(loads[0] + loads[1] + loads[2] + loads[3], 20);
    for (const size_t first : {0, 2}) EXPECT_TRUE(loads[first] == 0 || loads[first + 1] == 0);
    first_closed.insert({loads[0] == 0, loads[2] == 0});
  }
  EXPECT_GT(first_closed.size(), 1u);  // drawn anew
  EXPECT_EQ(loads_of(tiny, RngKey{3}, Mode::train), loads_of(tiny, RngKey{3}, Mode::train));
}

TEST_P(ExpertDropout, LeavesEvaluationAlone) {
  VitConfig plain = config_of(GetParam());
  plain.moe.expert_dropout = 0;
  TinyModel with(config_of(GetParam())), without(plain);
  EXPECT_EQ(loads_of(with, RngKey{1}, Mode::eval), loads_of(without, RngKey{1}, Mode::eval));
}

/// Routers by which a token chooses its experts, but for the one that counts who was chosen.
std::vector<RouterKind> routers_of_tokens() {
  std::vector<RouterKind> all = choosing_routers();
  std::erase(all, RouterKind::bias_balanced);
  return all;
}

INSTANTIATE_TEST_SUITE_P(Moe, ExpertDropout, ::testing::ValuesIn(routers_of_tokens()),
                         [](const auto& test) { return std::string(enum_name(test.param)); });

TEST(ExpertDropout, RunningStatisticsTakeInClosedExpertsToo) {
  VitConfig closing = config_of(RouterKind::ermoe), open = closing;
  open.moe.expert_dropout = 0;
  TinyModel with(closing), without(open);
  const auto statistics = [](TinyModel& tiny) {
    EXPECT_TRUE(TinyTraining(tiny).step().accepted);
    Snapshot all;
    for (const Buffer* b : buffers_of(tiny.model)) all[b->name] = b->value.clone();
    return all;
  };
  expect_same(statistics(with), statistics(without));
}

TEST(ExpertDropout, GoesBesideAMask) {
  TinyModel tiny(config_of(RouterKind::linear));
  const Tensor allow = Tensor::zeros(tiny.bench.allocator, {20, 4}, DType::u8);
  for (int64_t n = 0; n < 20; ++n) allow.data<uint8_t>()[4 * n] = allow.data<uint8_t>()[4 * n + 1] = 1;
  for (uint64_t key = 0; key < 6; ++key) {
    const auto loads = loads_of(tiny, RngKey{key}, Mode::train, allow);
    EXPECT_TRUE(loads[0] == 20 || loads[1] == 20) << "one of the two that the mask leaves is closed";
  }
}

void expect_refused(const std::function<void(MoeConfig&)>& change, const std::string& start) {
  VitConfig config = config_of(RouterKind::linear);
  change(config.moe);
  try {
    Vit model(config);
    ADD_FAILURE() << "not refused: " << start;
  } catch (const InputError& e) {
    EXPECT_TRUE(std::string(e.what()).starts_with(start)) << e.what();
  }
}

TEST(ExpertDropout, WhatCannotBeIsRefused) {
  expect_refused([](MoeConfig& moe) { moe.expert_clusters = 3; }, "moe.expert_clusters: 3 clusters do not divide moe.experts 4");
  expect_refused([](MoeConfig& moe) { moe.expert_dropout = 0.4; }, "moe.expert_dropout: 0.4 of a cluster of 2 experts");
  expect_refused([](MoeConfig& moe) { moe.top_k = 3; }, "moe.expert_dropout: 0.5 leaves 2 experts open");
  expect_refused([](MoeConfig& moe) { moe.router = RouterKind::bias_balanced; }, "moe.expert_dropout: moe.router bias_balanced");
}

TEST(ExpertDropout, CountsWholeExperts) {
  MoeConfig moe;
  const auto dropped = [&](double share, int64_t experts, int64_t clusters) {
    moe.expert_dropout = share;
    moe.experts = experts;
    moe.expert_clusters = clusters;
    return dropped_experts(moe);
  };
  EXPECT_EQ(dropped(0, 8, 2), 0);
  EXPECT_EQ(dropped(0.1, 10, 1), 1);
  EXPECT_EQ(dropped(0.3, 20, 2), 3);
  EXPECT_EQ(dropped(0.99, 8, 2), 3);
  EXPECT_EQ(dropped(0.5, 6, 2), 1);
}

}  // namespace
}  // namespace ermoe::testing
