// CLIP models in files of either naming against an independent float64 model (tests/golden/make_clip_golden.py), and files that do not fit.
#include "models/clip_weights.h"

#include "tests/models/dual_fixture.h"
#include "tests/ops/expect_error.h"
#include "tests/scratch.h"

namespace ermoe::testing {
namespace {

std::string golden(const std::string& name) { return std::string(ERMOE_SOURCE_DIR) + "/tests/golden/clip/" + name + ".safetensors"; }

/// What a user knows beside the file; all sizes but heads, which are not 64 wide here, are open.
DualConfig open_config(Activation activation) {
  DualConfig c;
  c.image.image_size = c.image.channels = c.image.patch = c.image.width = c.image.depth = 0;
  c.image.mlp_ratio = 0;
  c.image.heads = 3;
  c.image.moe.layers = "none";
  c.image.activation = activation;
  c.text = {.vocabulary = 0, .end_token = 28, .context = 0, .width = 0, .depth = 0, .heads = 2, .mlp_ratio = 0, .moe_layers = "none"};
  c.retrieval.projection = 0;
  return c;
}

struct Naming {
  const char* name;
  Activation activation;
};

class ClipWeights : public ::testing::TestWithParam<Naming> {
 protected:
  std::string weights_ = golden(std::string(GetParam().name) + "_weights");
  DualConfig config_ = clip_config(weights_, open_config(GetParam().activation));
  TestBench bench_;
  ScratchFolder folder_;

  /// Largest error of both towers' features by the weights in `path`.
  double error(const std::string& path, DType dtype) {
    const SafetensorsFile expected = SafetensorsFile::open(golden(GetParam().name));
    DualEncoder model(config_);
    model.allocate(bench_.ctx, dtype);
    model.init(bench_.ctx, RngKey{1});
    const LoadReport report = load_clip_weights(bench_.ctx, path, model);
    EXPECT_EQ(report.summary(), "");
    ExecContext eval = bench_.ctx;
    eval.mode = Mode::eval;
    ForwardPass pass;
    const Pairs pairs =
        model.pairs(eval, expected.load("images", bench_.allocator, dtype), expected.load("tokens", bench_.allocator, DType::i32), pass);
    EXPECT_EQ(to_doubles(model.log_scale().value), (std::vector<double>{2.5}));
    double worst = 0;
    for (const auto& [name, got] : {std::pair("image_features", pairs.image), {"text_features", pairs.text}}) {
      const auto want = to_doubles(expected.load(name, bench_.allocator, DType::f64)), have = to_doubles(got.value);
      EXPECT_EQ(want.size(), have.size());
      for (size_t i = 0; i < want.size(); ++i) worst = std::isnan(have[i]) ? INFINITY : std::max(worst, std::abs(want[i] - have[i]));
    }
    return worst;
  }

  /// The file with its tensors changed.
  std::string changed(const std::function<void(std::vector<NamedTensor>&)>& change, DType dtype = DType::f32) {
    const SafetensorsFile file = SafetensorsFile::open(weights_);
    std::vector<NamedTensor> entries;
    for (const std::string& name : file.names()) {
      const bool whole = file.at(name).type == StoredType::i64;
      Tensor t = file.load(name, bench_.allocator, whole ? DType::i64 : dtype == DType::bf16 ? DType::f32 : dtype);
      if (!whole && dtype == DType::bf16) {
        const Tensor narrow = Tensor::empty(bench_.allocator, t.shape(), DType::bf16);
        convert(t, narrow);
        t = narrow;
      }
      entries.push_back({name, t});
    }
    change(entries);
    const std::string path = folder_.file("changed.safetensors");
    write_safetensors(path, entries);
    return path;
  }

  void expect_refused(const std::function<void(std::vector<NamedTensor>&)>& change, std::initializer_list<const char*> parts) {
    const std::string path = changed(change);
    DualEncoder model(config_);
    model.allocate(bench_.ctx, DType::f32);
    model.init(bench_.ctx, RngKey{1});
    const double before = to_doubles(model.log_scale().value)[0];
    expect_error([&] { load_clip_weights(bench_.ctx, path, model); }, parts);
    EXPECT_EQ(to_doubles(model.log_scale().value)[0], before);
  }
};

TEST_P(ClipWeights, GiveTheSameFeatures) {
  EXPECT_LE(error(weights_, DType::f64), 1e-9);
  EXPECT_LE(error(weights_, DType::f32), 1e-4);
  EXPECT_LE(error(changed([](auto&) {}), DType::f32), 1e-4);
  EXPECT_LE(error(changed([](auto&) {}, DType::bf16), DType::f32), 0.1);
}

TEST_P(ClipWeights, TellTheirSizes) {
  EXPECT_EQ(config_.image.image_size, 8);
  EXPECT_EQ(config_.image.patch, 4);
  EXPECT_EQ(config_.image.channels, 3);
  EXPECT_EQ(config_.image.width, 12);
  EXPECT_EQ(config_.image.depth, 2);
  EXPECT_EQ(config_.image.mlp_ratio, 4);
  EXPECT_EQ(config_.text.width, 8);
  EXPECT_EQ(config_.text.depth, 3);
  EXPECT_EQ(config_.text.vocabulary, 29);
  EXPECT_EQ(config_.text.context, 7);
  EXPECT_EQ(config_.retrieval.projection, 6);
  EXPECT_TRUE(config_.image.pre_norm);
  EXPECT_EQ(config_.image.patch_bias, PatchBias::off);
  EXPECT_EQ(config_.image.norm_eps, 1e-5);
  EXPECT_TRUE(has_clip_names(SafetensorsFile::open(weights_)));
}

TEST_P(ClipWeights, MayHaveNoNormBeforeTheBlocks) {
  const std::string path = changed([](auto& all) {
    std::erase_if(all, [](const NamedTensor& t) {
      return t.name.find("ln_pre") != std::string::npos || t.name.find("pre_lay") != std::string::npos;
    });
  });
  EXPECT_FALSE(clip_config(path, open_config(GetParam().activation)).image.pre_norm);
  DualEncoder model(config_);
  model.allocate(bench_.ctx, DType::f32);
  expect_error([&] { load_clip_weights(bench_.ctx, path, model); }, {"changed.safetensors", "give --model.pre_norm false"});
}

TEST_P(ClipWeights, OtherSizesAreNamed) {
  const auto refuse = [&](const std::function<void(DualConfig&)>& change, std::initializer_list<const char*> parts) {
    DualConfig wanted = open_config(Activation::gelu);
    change(wanted);
    expect_error([&] { clip_config(weights_, wanted); }, parts);
  };
  refuse([](DualConfig& c) { c.image.width = 768; }, {"weights.safetensors", "model.width is 768", "12"});
  refuse([](DualConfig& c) { c.text.context = 77; }, {"text.context is 77", "7"});
  refuse([](DualConfig& c) { c.text.vocabulary = 30; }, {"text.vocabulary is 30", "29"});
  refuse([](DualConfig& c) { c.retrieval.projection = 512; }, {"retrieval.projection is 512", "6"});
  refuse([](DualConfig& c) { c.image.heads = 0; }, {"model.heads", "12", "64"});
  refuse([](DualConfig& c) { c.text.mlp_ratio = 2; }, {"text.mlp_ratio", "16", "32"});
  expect_error([&] { clip_config(golden("case_72"), open_config(Activation::gelu)); }, {"case_72", "no CLIP model"});
}

TEST_P(ClipWeights, WhatDoesNotFitIsNamed) {
  const std::string first = SafetensorsFile::open(weights_).names()[0];
  expect_refused([](auto& all) { all.erase(all.begin()); }, {"changed.safetensors", first.c_str()});
  expect_refused(
      [&](auto& all) {
        all.push_back({"visual.more", Tensor::zeros(bench_.allocator, {2}, DType::f32)});
      },
      {"no place for visual.more"});
  expect_refused(
      [&](auto& all) {
        for (auto& [name, tensor] : all)
          if (name == "logit_scale") tensor = Tensor::zeros(bench_.allocator, {3}, DType::f32);
      },
      {"logit_scale is (3)", "(1)"});
  config_.image.layer_scale = 0.1;
  expect_refused([](auto&) {}, {"nothing for image.blocks.0.ls1.gamma", "plain blocks"});
}

TEST_P(ClipWeights, LeaveExpertsAsTheyAre) {
  config_.image.activation = Activation::gelu;
  config_.image.moe = small_dual().image.moe;
  config_.image.moe.layers = "1";
  DualEncoder model(config_);
  model.allocate(bench_.ctx, DType::f32);
  model.init(bench_.ctx, RngKey{1});
  const LoadReport report = load_clip_weights(bench_.ctx, weights_, model);
  EXPECT_EQ(report.unexpected.size(), 4u);
  for (const std::string& name : report.missing) EXPECT_TRUE(name.starts_with("image.blocks.1.moe.")) << name;
  EXPECT_FALSE(report.missing.empty());
  const SafetensorsFile file = SafetensorsFile::open(weights_);
  EXPECT_EQ(clip_tensor(file, "image.blocks.1.mlp.fc1.weight", bench_.allocator, DType::f32).shape(), (Shape{48, 12}));
  EXPECT_EQ(clip_tensor(file, "text.blocks.2.mlp.fc2.bias", bench_.allocator, DType::f32).shape(), (Shape{8}));
  EXPECT_FALSE(clip_tensor(file, "image.blocks.2.mlp.fc1.weight", bench_.allocator, DType::f32).defined());
}

TEST(ClipConfig, HeadsAreThoseOfPublishedModels) {
  TestBench bench;
  ScratchFolder folder;
  const auto zeros = [&](const Shape& shape) { return Tensor::zeros(bench.allocator, shape, DType::f32); };
  const std::string path = folder.file("clip.safetensors");
  const auto heads_of = [&](int64_t width, int64_t words) {
    write_safetensors(path, {{"visual.class_embedding", zeros({width})},
                             {"visual.conv1.weight", zeros({width, 3, 2, 2})},
                             {"visual.positional_embedding", zeros({10, width})},
                             {"visual.proj", zeros({width, 6})},
                             {"token_embedding.weight", zeros({11, words})},
                             {"positional_embedding", zeros({5, words})}});
    DualConfig wanted = open_config(Activation::gelu);
    wanted.image.heads = wanted.text.heads = 0;
    const DualConfig config = clip_config(path, wanted);
    EXPECT_EQ(config.image.image_size, 6);
    return std::pair(config.image.heads, config.text.heads);
  };
  EXPECT_EQ(heads_of(128, 64), std::pair(int64_t{2}, int64_t{1}));
  EXPECT_EQ(heads_of(768, 512), std::pair(int64_t{12}, int64_t{8}));     // ViT-B
  EXPECT_EQ(heads_of(1280, 1024), std::pair(int64_t{16}, int64_t{16}));  // ViT-H
  EXPECT_EQ(heads_of(1664, 1280), std::pair(int64_t{16}, int64_t{20}));  // ViT-bigG
}

TEST_P(ClipWeights, PositionsAreInterpolatedToLargerImages) {
  DualConfig wanted = open_config(GetParam().activation);
  wanted.image.image_size = 16;
  DualEncoder model(clip_config(weights_, wanted));
  model.allocate(bench_.ctx, DType::f32);
  model.init(bench_.ctx, RngKey{1});
  const LoadReport report = load_clip_weights(bench_.ctx, weights_, model);
  ASSERT_EQ(report.adapted.size(), 1u);
  EXPECT_EQ(report.adapted[0], "image.pos_embed: 2x2 to 4x4");
}

INSTANTIATE_TEST_SUITE_P(Namings, ClipWeights,
                         ::testing::Values(Naming{"case_70", Activation::quick_gelu}, Naming{"case_71", Activation::gelu}),
                         [](const auto& which) {
                           return std::string(which.param.name == std::string("case_70") ? "HuggingFace" : "OpenClip");
                         });

}  // namespace
}  // namespace ermoe::testing
