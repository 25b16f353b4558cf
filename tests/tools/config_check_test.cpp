// Combinations of settings that cannot be had: each is refused with the key it is about.
#include "tools/config_check.h"

#include "core/error.h"
#include "models/config_rules.h"
#include "tools/presets.h"

#include <gtest/gtest.h>

#include <functional>

namespace ermoe {
namespace {

using Change = std::function<void(RunConfig&)>;

std::string refusal(const Change& change) {
  RunConfig config;
  change(config);
  try {
    validate(config);
  } catch (const InputError& e) {
    return e.what();
  }
  return "accepted";
}

std::vector<std::string> warnings(const Change& change) {
  RunConfig config;
  change(config);
  return validate(config);
}

TEST(ConfigCheck, DefaultsAreSound) { EXPECT_TRUE(validate(RunConfig{}).empty()); }

TEST(ConfigCheck, EachRefusalStartsWithItsKey) {
  const std::vector<std::pair<std::string, Change>> cases = {
      {"moe.top_k", [](RunConfig& c) { c.model.moe.top_k = 9; }},
      {"moe.basis_rank", [](RunConfig& c) { c.model.moe.basis = Basis::disjoint, c.model.moe.basis_rank = 25; }},
      {"moe.basis_rank", [](RunConfig& c) { c.model.moe.basis = Basis::disjoint, c.model.moe.experts = 193; }},
      {"moe.basis_rank", [](RunConfig& c) { c.model.moe.basis_rank = 192; }},
      {"moe.basis_rank", [](RunConfig& c) { c.model.moe.basis_rank = 193; }},
      {"moe.basis_rank", [](RunConfig& c) { c.model.moe.rank = 16, c.model.moe.basis_rank = 17; }},
      {"moe.basis", [](RunConfig& c) { c.model.moe.expert = ExpertKind::plain; }},
      {"moe.rank", [](RunConfig& c) { c.model.moe.rank = 193; }},
      {"moe.rank", [](RunConfig& c) { c.model.moe.hidden = 64, c.model.moe.rank = 65; }},
      {"moe.free_experts", [](RunConfig& c) { c.model.moe.free_experts = 1; }},
      {"moe.free_experts",
       [](RunConfig& c) { c.model.moe.free_experts = 1, c.model.moe.threshold = "0.1", c.model.moe.router = RouterKind::vmoe; }},
      {"moe.free_experts", [](RunConfig& c) { c.model.dimensions = 3, c.model.moe.experts = 2, c.model.moe.regions = "0:1;1:2"; }},
      {"moe.regions", [](RunConfig& c) { c.model.moe.regions = "0:1", c.model.moe.free_experts = 1; }},
      {"data.folds", [](RunConfig& c) { c.data.folds = 5; }},
      {"data.folds", [](RunConfig& c) { c.data.folds = 1, c.model.dimensions = 3; }},
      {"data.fold", [](RunConfig& c) { c.data.folds = 5, c.data.fold = 6, c.model.dimensions = 3; }},
      {"moe.capacity_train", [](RunConfig& c) { c.model.moe.capacity_train = 1; }},
      {"moe.extra_balance", [](RunConfig& c) { c.model.moe.router = RouterKind::switch_lbl, c.model.moe.extra_balance = 0.1; }},
      {"moe.z_weight", [](RunConfig& c) { c.model.moe.router = RouterKind::learned_cosine, c.model.moe.z_weight = 0.1; }},
      {"moe.replicas", [](RunConfig& c) { c.model.moe.replicas = 1; }},
      {"moe.replicas",
       [](RunConfig& c) { c.model.moe.replicas = 1, c.model.moe.expert = ExpertKind::plain, c.model.moe.basis = Basis::untied; }},
      {"moe.simbal_weight", [](RunConfig& c) { c.model.moe.simbal_weight = 0.1; }},
      {"moe.orthogonal_output_weight", [](RunConfig& c) { c.model.moe.top_k = 1, c.model.moe.orthogonal_output_weight = 0.1; }},
      {"moe.threshold", [](RunConfig& c) { c.model.moe.threshold = "quantile:0"; }},
      {"moe.threshold", [](RunConfig& c) { c.model.moe.threshold = "0.1", c.model.moe.router = RouterKind::soft; }},
      {"moe.threshold", [](RunConfig& c) { c.model.moe.threshold = "0.1", c.model.moe.router = RouterKind::expert_choice; }},
      {"moe.free_experts", [](RunConfig& c) { c.model.moe.free_experts = 1, c.model.moe.router = RouterKind::soft; }},
      {"moe.soft_slots", [](RunConfig& c) { c.model.moe.soft_slots = 4, c.model.moe.router = RouterKind::linear; }},
      {"moe.choice_images", [](RunConfig& c) { c.model.moe.choice_images = 4, c.model.moe.router = RouterKind::soft; }},
      {"moe.layers", [](RunConfig& c) { c.model.moe.layers = "1,8"; }},
      {"moe.layers", [](RunConfig& c) { c.model.moe.layers = "1,1"; }},
      {"moe.layers", [](RunConfig& c) { c.model.moe.layers = "last:9"; }},
      {"moe.layers", [](RunConfig& c) { c.model.moe.layers = "every:9"; }},
      {"model.heads", [](RunConfig& c) { c.model.heads = 7; }},
      {"model.patch", [](RunConfig& c) { c.model.image_size = 30; }},
      {"model.positions", [](RunConfig& c) { c.model.width = 6, c.model.positions = Positions::sincos; }},
      {"model.positions",
       [](RunConfig& c) { c.model.width = 256, c.model.heads = 8, c.model.dimensions = 3, c.model.positions = Positions::sincos; }},
      {"model.volume",
       [](RunConfig& c) {
         c.model.volume = {8, 8, 8};
       }},
      {"model.volume",
       [](RunConfig& c) {
         c.model.dimensions = 3, c.model.volume = {8, 8};
       }},
      {"model.patch",
       [](RunConfig& c) {
         c.model.dimensions = 3, c.model.volume = {8, 8, 9};
       }},
      {"model.classes", [](RunConfig& c) { c.loss.kind = LossKind::l1, c.model.classes = 2; }},
      {"model.classes", [](RunConfig& c) { c.loss.kind = LossKind::soft_labels, c.model.classes = 1; }},
      {"loss.bins", [](RunConfig& c) { c.loss.kind = LossKind::soft_labels, c.loss.bins = "10:9"; }},
      {"loss.smoothing", [](RunConfig& c) { c.loss.kind = LossKind::soft_labels, c.loss.smoothing = 0.1; }},
      {"loss.class_weights", [](RunConfig& c) { c.loss.kind = LossKind::l2, c.loss.class_weights = {1}; }},
      {"loss.smoothing", [](RunConfig& c) { c.loss.kind = LossKind::huber, c.loss.smoothing = 0.1; }},
      {"augment.shift", [](RunConfig& c) { c.augment.shift = 1; }},
      {"augment.noise", [](RunConfig& c) { c.augment.noise = 0.1; }},
      {"augment.crop_padding", [](RunConfig& c) { c.model.dimensions = 3, c.augment.crop_padding = 1; }},
      {"augment.cutmix", [](RunConfig& c) { c.model.dimensions = 3, c.augment.cutmix = 1; }},
      {"data.mean",
       [](RunConfig& c) {
         c.data.mean = {0.5}, c.data.std = {1, 1};
       }},
      {"data.std", [](RunConfig& c) { c.data.std = {1}; }},
      {"data.mean", [](RunConfig& c) { c.data.mean = c.data.std = {1}, c.model.channels = 3; }},
      {"loss.class_weights",
       [](RunConfig& c) {
         c.loss.class_weights = {1, 2}, c.model.classes = 3;
       }},
      {"loss.class_weights",
       [](RunConfig& c) {
         c.loss.class_weights = {0, 0};
       }},
      {"optim.min_lr", [](RunConfig& c) { c.optim.min_lr = 1; }},
      {"optim.warmup_steps", [](RunConfig& c) { c.optim.warmup_steps = 11, c.train.steps = 10; }},
      {"optim.cooldown_steps", [](RunConfig& c) { c.optim.cooldown_steps = 6, c.optim.warmup_steps = 5, c.train.steps = 10; }},
      {"train.epochs", [](RunConfig& c) { c.train.epochs = 0; }},
      {"train.batch", [](RunConfig& c) { c.train.accumulate = 3; }},
      {"train.device", [](RunConfig& c) { c.train.device = DeviceChoice::cuda; }},
      {"train.resume", [](RunConfig& c) { c.train.resume = c.train.init = "x"; }},
      {"train.freeze", [](RunConfig& c) { c.train.freeze = {""}; }},
      {"train.upcycle_noise", [](RunConfig& c) { c.train.upcycle_noise = 0.1; }},
  };
  for (size_t i = 0; i < cases.size(); ++i)
    EXPECT_TRUE(refusal(cases[i].second).starts_with(cases[i].first)) << i << ": " << refusal(cases[i].second);
}

TEST(ConfigCheck, BorderCasesAreAccepted) {
  const std::vector<Change> cases = {
      [](RunConfig& c) { c.model.moe.top_k = 8; },
      [](RunConfig& c) { c.model.moe.top_k = 9, c.model.moe.free_experts = 1, c.model.moe.threshold = "quantile:0.1"; },
      [](RunConfig& c) { c.model.moe.basis = Basis::disjoint, c.model.moe.basis_rank = 24; },
      [](RunConfig& c) { c.model.moe.basis = Basis::leading, c.model.moe.basis_rank = 191; },
      [](RunConfig& c) { c.model.moe.expert = ExpertKind::plain, c.model.moe.basis = Basis::untied; },
      [](RunConfig& c) { c.model.moe.expert = ExpertKind::plain, c.model.moe.router = RouterKind::linear; },
      [](RunConfig& c) { c.model.moe.layers = "none", c.model.moe.top_k = 99; },
      [](RunConfig& c) { c.model.moe.layers = "last:8"; },
      [](RunConfig& c) {
        c.model.dimensions = 3, c.model.volume = {8, 12, 4}, c.loss.kind = LossKind::l1;
      },
      [](RunConfig& c) { c.loss.kind = LossKind::soft_labels, c.model.classes = 90; },
      [](RunConfig& c) { c.loss.kind = LossKind::soft_labels, c.model.classes = 0; },
      [](RunConfig& c) {
        c.model.dimensions = 3, c.model.moe.experts = 2, c.model.moe.regions = "0:1,2;1:3", c.model.moe.free_experts = 1;
      },
      [](RunConfig& c) { c.model.moe.experts = 1, c.model.moe.top_k = 1, c.model.moe.combine = Combine::raw; },
  };
  for (size_t i = 0; i < cases.size(); ++i) EXPECT_EQ(refusal(cases[i]), "accepted") << i;
}

TEST(ConfigCheck, PresetsAreWholeAndSoundRecipes) {
  for (const Preset& preset : presets()) {
    RunConfig config;
    apply_preset(config, preset.name);
    EXPECT_TRUE(validate(config).empty()) << preset.name;
    EXPECT_EQ(config.train.name, preset.name);
    const VitConfig& model = config.model;
    if (model.dimensions == 2)
      EXPECT_GT(model.image_size * model.channels * model.classes, 0) << preset.name;
    else
      EXPECT_EQ(model.volume.size(), 3u) << preset.name;  // volumes have one channel, and the loss says how many outputs
  }
}

TEST(ConfigCheck, BoundsOfCropsComeInPairs) {
  const auto fault_of = [](const std::vector<double>& scale) -> std::string {
    RunConfig config;
    config.augment.crop_scale = scale;
    try {
      validate(config);
    } catch (const InputError& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(fault_of({0.2, 0.9}), "");
  for (const std::vector<double>& wrong : {std::vector<double>{}, {0.5}, {0.9, 0.2}, {0.1, 0.2, 0.3}})
    EXPECT_EQ(fault_of(wrong), "augment.crop_scale wants two values, the smaller one first");
}

TEST(ConfigCheck, ClassesOfImagesAreNeitherVolumesNorNumbers) {
  RunConfig volumes, numbers;
  volumes.model.dimensions = 3;
  numbers.loss.kind = LossKind::huber;
  for (const auto& [config, key] : {std::pair{&volumes, "model.dimensions"}, {&numbers, "loss.kind"}}) {
    try {
      require_classes_of_images(*config, "some.tar");
      ADD_FAILURE() << key << " was accepted";
    } catch (const InputError& e) {
      EXPECT_TRUE(std::string(e.what()).starts_with(key)) << e.what();
    }
  }
  EXPECT_NO_THROW(require_classes_of_images(RunConfig{}, "some.tar"));
}

TEST(ConfigCheck, FullBasisIsRefusedWithTheReason) {
  const std::string message = refusal([](RunConfig& c) { c.model.moe.basis_rank = 192; });
  EXPECT_NE(message.find("every expert would get the same score cos(x,c)"), std::string::npos) << message;
}

TEST(ConfigCheck, WhatGoesWithATextTower) {
  const auto pairs = [](const Change& change) {
    return refusal([&](RunConfig& c) {
      c.text.depth = 2;
      change(c);
    });
  };
  EXPECT_EQ(pairs([](RunConfig&) {}), "accepted");
  const std::vector<std::pair<std::string, Change>> refused = {
      {"model.dimensions", [](RunConfig& c) { c.model.dimensions = 3; }},
      {"model.pool", [](RunConfig& c) { c.model.pool = Pool::flatten; }},
      {"model.classes", [](RunConfig& c) { c.model.classes = 10; }},
      {"loss.kind", [](RunConfig& c) { c.loss.kind = LossKind::sigmoid; }},
      {"loss.smoothing", [](RunConfig& c) { c.loss.smoothing = 0.1; }},
      {"loss.class_weights",
       [](RunConfig& c) {
         c.loss.class_weights = {1, 2};
       }},
      {"augment.mixup", [](RunConfig& c) { c.augment.mixup = 0.8; }},
      {"augment.cutmix", [](RunConfig& c) { c.augment.cutmix = 0.8; }},
      {"text.vocabulary", [](RunConfig& c) { c.text.vocabulary = 513; }},
      {"text.heads", [](RunConfig& c) { c.text.heads = 7; }},
      {"of the text tower, moe.layers", [](RunConfig& c) { c.text.moe_layers = "last:3"; }},
      {"text.moe_layers", [](RunConfig& c) { c.text.moe_layers = "every:2", c.model.moe.router = RouterKind::soft; }},
      {"train.batch", [](RunConfig& c) { c.train.batch = c.train.accumulate = 8; }}};
  for (const auto& [key, change] : refused) EXPECT_TRUE(pairs(change).starts_with(key)) << key << ": " << pairs(change);
  const std::vector<std::pair<std::string, Change>> alone = {{"text.tokenizer", [](RunConfig& c) { c.tokenizer = "clip"; }},
                                                             {"text.vocabulary", [](RunConfig& c) { c.text.vocabulary = 1000; }},
                                                             {"text.moe_layers", [](RunConfig& c) { c.text.moe_layers = "every:2"; }},
                                                             {"data.part", [](RunConfig& c) { c.data.part = EvaluationPart::val; }}};
  for (const auto& [key, change] : alone) EXPECT_TRUE(refusal(change).starts_with(key)) << key << ": " << refusal(change);
  EXPECT_EQ(warnings([](RunConfig& c) { c.text.depth = 2, c.train.accumulate = 2; }).size(), 1u);
}

TEST(ConfigCheck, OddButAllowedSettingsAreWarnedOf) {
  const auto one = warnings([](RunConfig& c) { c.model.moe.top_k = 1, c.model.moe.combine = Combine::normalized; });
  ASSERT_EQ(one.size(), 1u);
  EXPECT_NE(one[0].find("no gradient"), std::string::npos);
  EXPECT_EQ(warnings([](RunConfig& c) { c.model.moe.threshold = "0.1", c.model.moe.standardize = false; }).size(), 1u);
  EXPECT_EQ(warnings([](RunConfig& c) { c.augment.mixup = 1, c.augment.off_epochs = 10; }).size(), 1u);
}

TEST(ConfigRules, MoeBlocks) {
  EXPECT_EQ(moe_blocks("every:2", 8), (std::vector<int64_t>{1, 3, 5, 7}));
  EXPECT_EQ(moe_blocks("every:1", 3), (std::vector<int64_t>{0, 1, 2}));
  EXPECT_EQ(moe_blocks("last:3", 8), (std::vector<int64_t>{5, 6, 7}));
  EXPECT_EQ(moe_blocks("5,1,0", 8), (std::vector<int64_t>{0, 1, 5}));
  EXPECT_TRUE(moe_blocks("none", 8).empty());
  for (const char* bad : {"", "every", "every:", "every:0", "every:-1", "every:2x", "last:0", "1,", ",1", "1,,2", "-1", "1.5", "all",
                          "1 ,2", "99999999999999999999"}) {
    EXPECT_THROW(moe_blocks(bad, 8), InputError) << bad;
  }
}

TEST(ConfigRules, Threshold) {
  EXPECT_EQ(parse_threshold("none").kind, ThresholdRule::Kind::none);
  EXPECT_EQ(parse_threshold("-0.25").value, -0.25);
  EXPECT_EQ(parse_threshold("quantile:0.1").kind, ThresholdRule::Kind::quantile);
  for (const char* bad : {"", "nan", "inf", "quantile", "quantile:", "quantile:1", "quantile:0", "quantile:-0.5", "0.1x", "None"}) {
    EXPECT_THROW(parse_threshold(bad), InputError) << bad;
  }
}

TEST(ConfigRules, RanksThatAreLeftOpen) {
  VitConfig m;
  m.moe.basis = Basis::leading;
  m.width = 384;
  EXPECT_EQ(basis_rank(m), 48);
  m.width = 192;
  EXPECT_EQ(basis_rank(m), 24);
  m.width = 100;
  EXPECT_EQ(basis_rank(m), 16);
  m.width = 32;
  EXPECT_EQ(basis_rank(m), 8);
  m.width = 4;
  EXPECT_EQ(basis_rank(m), 3);
  m.width = 192;
  m.moe.rank = 10;
  EXPECT_EQ(basis_rank(m), 10);
  m.moe.rank = 0;
  m.moe.basis = Basis::disjoint;
  EXPECT_EQ(basis_rank(m), 24);
  m.moe.hidden = 64;
  EXPECT_EQ(factor_rank(m), 64);
  EXPECT_EQ(expert_hidden(m), 64);
}

TEST(Threads, GivenOrCounted) {
  EXPECT_GE(resolve_threads(0), 1);
  EXPECT_EQ(resolve_threads(3), 3);
  EXPECT_EQ(resolve_threads(3, 2), 3);
  EXPECT_GE(resolve_threads(0, 2), 1);
  EXPECT_LE(resolve_threads(0, 2), resolve_threads(0));
}

}  // namespace
}  // namespace ermoe
