// What several ranks refuse to train together. How they agree at the start is tested under mpirun, by tests/ranks.sh.
#include "tools/rank_agreement.h"

#include "core/error.h"

#include <gtest/gtest.h>

namespace ermoe {
namespace {

std::string refusal(const RunConfig& config, int ranks) {
  try {
    require_parts_of_batches(config, ranks);
  } catch (const InputError& e) {
    return e.what();
  }
  return "accepted";
}

TEST(RankAgreement, WhatIsOfAWholeBatchIsRefused) {
  RunConfig config;
  EXPECT_EQ(refusal(config, 64), "accepted");
  config.model.moe.router = RouterKind::switch_lbl;
  EXPECT_EQ(refusal(config, 1), "accepted");
  EXPECT_TRUE(refusal(config, 2).starts_with("moe.router: switch_lbl's balance loss"));
  config.model.moe.balance_weight = 0;
  EXPECT_EQ(refusal(config, 2), "accepted");
  config.model.moe.router = RouterKind::ermoe;
  config.model.moe.z_weight = 0.1;  // a mean over tokens
  EXPECT_EQ(refusal(config, 2), "accepted");
  config.train.purity_every = 10;
  EXPECT_EQ(refusal(config, 1), "accepted");
  EXPECT_TRUE(refusal(config, 2).starts_with("train.purity_every: gradients' purity is measured by one process"));
  config.train.purity_every = 0;
  config.model.moe.router = RouterKind::linear;
  config.model.moe.simbal_weight = 0.1;             // of a parameter
  config.model.moe.orthogonal_output_weight = 0.1;  // a mean over tokens
  EXPECT_EQ(refusal(config, 2), "accepted");
  config.model.moe.variance_weight = 0.1;
  EXPECT_EQ(refusal(config, 1), "accepted");
  EXPECT_TRUE(refusal(config, 2).starts_with("moe.variance_weight: the scores' variance"));
  config.model.moe.variance_weight = 0;
  config.model.moe.extra_balance = 0.1;
  EXPECT_EQ(refusal(config, 1), "accepted");
  EXPECT_TRUE(refusal(config, 2).starts_with("moe.extra_balance: a balance loss"));
}

TEST(RankAgreement, VmoesGroupsAreWhole) {
  RunConfig config;
  config.model.moe.router = RouterKind::vmoe;
  config.model.moe.group_images = 8;
  config.train.batch = 128;
  EXPECT_EQ(refusal(config, 4), "accepted");
  EXPECT_EQ(
      refusal(config, 3),
      "moe.group_images: 128 images a micro-batch on 3 ranks are not whole groups of 8, of which vmoe's balance losses are; 1 always fits");
  config.train.accumulate = 8;
  EXPECT_EQ(refusal(config, 2), "accepted");
  EXPECT_TRUE(refusal(config, 4).starts_with("moe.group_images: 16 images"));
  config.model.moe.importance_weight = config.model.moe.load_weight = 0;
  EXPECT_EQ(refusal(config, 4), "accepted");
  config.model.moe.capacity_eval = 2;
  EXPECT_TRUE(refusal(config, 4).starts_with("moe.capacity_train, moe.capacity_eval: a capacity"));
  EXPECT_EQ(refusal(config, 1), "accepted");
}

/// How many tokens of captions are no padding only the whole batch knows.
TEST(RankAgreement, MeansOverCaptionsAreOfAWholeBatch) {
  RunConfig config;
  config.text.depth = 2;
  config.text.moe_layers = "last:1";
  EXPECT_EQ(refusal(config, 2), "accepted");
  config.model.moe.z_weight = 0.1;
  EXPECT_TRUE(refusal(config, 2).starts_with("moe.z_weight, moe.orthogonal_output_weight: with experts in the text tower"));
  EXPECT_EQ(refusal(config, 1), "accepted");
  config.text.moe_layers = "none";
  EXPECT_EQ(refusal(config, 2), "accepted");
}

TEST(RankAgreement, ExpertsChooseAmongWholeGroups) {
  RunConfig config;
  config.model.moe.router = RouterKind::expert_choice;
  config.train.batch = 128;
  EXPECT_EQ(refusal(config, 1), "accepted");
  EXPECT_EQ(
      refusal(config, 2),
      "moe.choice_images: 2 ranks cut batches, those of evaluations too, so experts must choose among the tokens of single images (1), "
      "not of all");
  config.model.moe.choice_images = 8;
  EXPECT_TRUE(refusal(config, 4).ends_with("not of 8"));
  config.model.moe.choice_images = 1;
  EXPECT_EQ(refusal(config, 3), "accepted");
}

TEST(RankAgreement, AProcessAloneHasItsCoresToItself) {
  SelfCommunicator alone;
  EXPECT_EQ(ranks_on_same_cores(alone), 1);
}

}  // namespace
}  // namespace ermoe
