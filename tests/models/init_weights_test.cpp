// Dual encoders that start from others' weights: CLIP's, timm's, those of this engine's dual encoders and classifiers; dense networks
// become experts of either tower. Golden files: tests/golden/make_clip_golden.py.
#include "models/clip_weights.h"
#include "tests/models/dual_fixture.h"
#include "tests/ops/expect_error.h"
#include "tests/scratch.h"

namespace ermoe::testing {
namespace {

std::string golden(const std::string& name) { return std::string(ERMOE_SOURCE_DIR) + "/tests/golden/clip/" + name + ".safetensors"; }

struct Made {
  explicit Made(const DualConfig& config, DType dtype = DType::f64, uint64_t seed = 1) : model(config) {
    model.allocate(bench.ctx, dtype);
    model.init(bench.ctx, RngKey{seed});
  }

  LoadReport start(const std::string& path, const InitOptions& options = {}) { return init_from_weights(bench.ctx, path, model, options); }
  Parameter& parameter(const std::string& name) {
    for (Parameter* p : parameters_of(model))
      if (p->name == name) return *p;
    fail("no parameter {}", name);
  }
  /// Of some images and captions, both towers' one after the other.
  std::vector<double> features() {
    const DType dtype = model.arena().dtype();
    const int64_t S = model.config().image.image_size;
    ExecContext eval = bench.ctx;
    eval.mode = Mode::eval;
    ForwardPass pass;
    const Pairs pairs = model.pairs(eval, random_input(bench.ctx, {{4, 3, S, S}}, dtype, RngKey{3}),
                                    Tensor::from<int32_t>(bench.allocator, {4, 7}, four_captions()), pass);
    routes = pass.routes;
    std::vector<double> all = to_doubles(pairs.image.value);
    for (const double v : to_doubles(pairs.text.value)) all.push_back(v);
    return all;
  }

  TestBench bench;
  DualEncoder model;
  std::vector<RoutingRecord> routes;  // of the last features
};

double apart(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return INFINITY;
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) worst = std::isnan(a[i] - b[i]) ? INFINITY : std::max(worst, std::abs(a[i] - b[i]));
  return worst;
}

/// Experts in blocks of either tower, whose weights add up to 1; as wide as dense networks are.
void give_experts(DualConfig& config, const std::string& image, const std::string& text) {
  config.image.activation = Activation::gelu;  // the only one that experts know
  config.image.moe = small_dual().image.moe;
  config.image.moe.hidden = config.image.moe.rank = 0;
  config.image.moe.combine = Combine::softmax;
  config.image.moe.layers = image;
  config.text.moe_layers = text;
}

/// The settings of cases 70 and 71.
DualConfig clip_settings(const std::string& weights, Activation activation) {
  DualConfig wanted = small_dual();
  wanted.image.activation = activation;
  wanted.image.mlp_ratio = wanted.text.mlp_ratio = 4;
  wanted.text.depth = 3;
  return clip_config(weights, wanted);
}

class FromClip : public ::testing::TestWithParam<const char*> {
 protected:
  std::string name_ = GetParam(), weights_ = golden(name_ + "_weights");
  DualConfig config_ = clip_settings(weights_, name_ == "case_70" ? Activation::quick_gelu : Activation::gelu);
};

TEST_P(FromClip, FeaturesAreThoseOfTheFile) {
  Made made(config_);
  EXPECT_EQ(made.start(weights_).summary(), "");
  const SafetensorsFile expected = SafetensorsFile::open(golden(name_));
  ExecContext eval = made.bench.ctx;
  eval.mode = Mode::eval;
  ForwardPass pass;
  const auto load = [&](const char* name, DType as) { return expected.load(name, made.bench.allocator, as); };
  const Pairs pairs = made.model.pairs(eval, load("images", DType::f64), load("tokens", DType::i32), pass);
  EXPECT_LT(apart(to_doubles(pairs.image.value), to_doubles(load("image_features", DType::f64))), 1e-9);
  EXPECT_LT(apart(to_doubles(pairs.text.value), to_doubles(load("text_features", DType::f64))), 1e-9);
}

TEST_P(FromClip, DenseNetworksBecomeExpertsOfBothTowers) {
  config_.image.activation = Activation::gelu;
  DualConfig sparse = config_;
  give_experts(sparse, "1", "0,2");
  Made dense(config_), exact(sparse, DType::f64, 2), single(sparse, DType::f32, 3);
  dense.start(weights_);
  const LoadReport report = exact.start(weights_);
  single.start(weights_);
  EXPECT_LT(apart(exact.features(), dense.features()), 1e-11);
  EXPECT_EQ(exact.routes.size(), 3u);
  Made narrow(config_, DType::f32);
  narrow.start(weights_);
  EXPECT_LT(apart(single.features(), narrow.features()), 1e-5);
  EXPECT_EQ(report.summary(), "");
  EXPECT_EQ(report.upcycled,
            "image tower's block 1: 4 experts each made from the dense network (SVD); "
            "text tower's blocks 0, 2: 4 experts each made from the dense network (SVD)");
}

TEST_P(FromClip, ExpertsAreLeftNewWhereAskedFor) {
  give_experts(config_, "1", "none");
  Made made(config_);
  const Tensor before = made.parameter("image.blocks.1.moe.experts.s1").value.clone();
  const LoadReport report = made.start(weights_, {.experts = InitOptions::Experts::left_new});
  EXPECT_EQ(report.unexpected.size(), 4u);
  EXPECT_EQ(report.upcycled, "");
  for (const std::string& name : report.missing) EXPECT_TRUE(name.starts_with("image.blocks.1.moe.")) << name;
  EXPECT_TRUE(same_bits(made.parameter("image.blocks.1.moe.experts.s1").value, before));
}

TEST_P(FromClip, ExpertsThatAreNoDenseNetworkAreLeftNew) {
  DualConfig mixed = config_, beside = config_;
  for (DualConfig* config : {&mixed, &beside}) give_experts(*config, "1", "none");
  mixed.image.moe.layer = ExpertLayer::cp;
  beside.image.moe.adapter = 8;
  Made factored(mixed), adapted(beside);
  const LoadReport instead = factored.start(weights_), too = adapted.start(weights_);
  EXPECT_EQ(instead.unexpected.size(), 4u);  // the dense network in whose place experts are
  EXPECT_TRUE(too.unexpected.empty());
  for (const std::string& name : instead.missing) EXPECT_TRUE(name.starts_with("image.blocks.1.cp.")) << name;
  for (const std::string& name : too.missing) EXPECT_TRUE(name.starts_with("image.blocks.1.moe.")) << name;
  EXPECT_EQ(instead.upcycled + too.upcycled, "");
}

TEST_P(FromClip, LargerImagesHaveInterpolatedPositions) {
  config_.image.image_size = 12;
  Made made(config_);
  EXPECT_EQ(made.start(weights_).adapted, std::vector<std::string>{"image.pos_embed: 2x2 to 3x3"});
}

TEST_P(FromClip, ASettingThatDoesNotFitIsNamed) {
  const auto refused = [&](const std::function<void(DualConfig&)>& change, std::initializer_list<const char*> parts) {
    DualConfig config = config_;
    change(config);
    Made made(config);
    const std::vector<double> before = made.features();
    expect_error([&] { made.start(weights_); }, parts);
    EXPECT_EQ(apart(made.features(), before), 0);
  };
  refused([](DualConfig& c) { c.image.width = 24; }, {"_weights", "model.width is 24", "12"});
  refused([](DualConfig& c) { c.image.depth = 3; }, {"model.depth is 3", "2"});
  refused([](DualConfig& c) { c.image.patch = 2; }, {"model.patch is 2", "4"});
  refused([](DualConfig& c) { c.text.vocabulary = 40; }, {"text.vocabulary is 40", "29"});
  refused([](DualConfig& c) { c.text.context = 9; }, {"text.context is 9", "7"});
  refused([](DualConfig& c) { c.retrieval.projection = 7; }, {"retrieval.projection is 7", "6"});
  refused([](DualConfig& c) { c.image.pre_norm = false; }, {"give --model.pre_norm true"});
  refused([](DualConfig& c) { c.image.patch_bias = PatchBias::on, c.image.pool = Pool::average; },
          {"give --model.patch_bias off --model.pool token"});
  give_experts(config_, "1", "none");
  config_.image.moe.hidden = 24;
  Made narrow(config_);
  expect_error([&] { narrow.start(weights_); }, {"image.blocks.1.mlp.fc1.weight is (48, 12)", "moe.hidden must be 48, not 24"});
}

INSTANTIATE_TEST_SUITE_P(Namings, FromClip, ::testing::Values("case_70", "case_71"),
                         [](const auto& which) { return std::string(which.param == std::string("case_70") ? "HuggingFace" : "OpenClip"); });

/// The settings of a dual encoder whose image tower is case 75's.
DualConfig timm_settings() {
  DualConfig config = small_dual();
  config.image.mlp_ratio = 4;
  return config;
}

/// Image features of case 75 by an independent model, behind the projection of `made`.
std::vector<double> expected_features(Made& made) {
  const SafetensorsFile file = SafetensorsFile::open(golden("case_75"));
  const auto features = to_doubles(file.load("features", made.bench.allocator, DType::f64));
  const auto head = to_doubles(made.parameter("image.head.weight").value);
  std::vector<double> all;
  for (size_t b = 0; b < 4; ++b) {
    double square = 0;
    for (size_t p = 0; p < 6; ++p) {
      double sum = 0;
      for (size_t d = 0; d < 12; ++d) sum += head[p * 12 + d] * features[b * 12 + d];
      all.push_back(sum);
      square += sum * sum;
    }
    for (size_t p = 0; p < 6; ++p) all[b * 6 + p] /= std::sqrt(square);
  }
  return all;
}

double timm_error(Made& made) {
  const SafetensorsFile file = SafetensorsFile::open(golden("case_75"));
  ExecContext eval = made.bench.ctx;
  eval.mode = Mode::eval;
  ForwardPass pass;
  const Tensor images = file.load("images", made.bench.allocator, made.model.arena().dtype());
  return apart(to_doubles(made.model.image_features(eval, Variable(images), pass).value), expected_features(made));
}

TEST(FromTimm, TheImageTowerIsTheFiles) {
  Made exact(timm_settings()), single(timm_settings(), DType::f32), untouched(timm_settings());
  const LoadReport report = exact.start(golden("case_75_weights"));
  single.start(golden("case_75_weights"));
  EXPECT_LT(timm_error(exact), 1e-9);
  EXPECT_LT(timm_error(single), 1e-4);
  EXPECT_EQ(report.unexpected, (std::vector<std::string>{"head.bias", "head.weight"}));
  EXPECT_TRUE(report.adapted.empty());
  for (const std::string& name : report.missing)
    EXPECT_TRUE(name == "image.head.weight" || name == "logit_scale" || name.starts_with("text.")) << name;
  for (const char* name : {"text.token_embed", "text.blocks.1.attn.qkv.weight", "image.head.weight", "logit_scale"})
    EXPECT_TRUE(same_bits(exact.parameter(name).value, untouched.parameter(name).value)) << name;
}

TEST(FromTimm, DenseNetworksBecomeExperts) {
  DualConfig config = timm_settings();
  give_experts(config, "0,1", "1");
  Made made(config);
  const LoadReport report = made.start(golden("case_75_weights"));
  EXPECT_LT(timm_error(made), 1e-9);
  EXPECT_EQ(report.upcycled, "image tower's blocks 0, 1: 4 experts each made from the dense network (SVD)");
  EXPECT_EQ(report.unexpected, (std::vector<std::string>{"head.bias", "head.weight"}));
  for (const std::string& name : report.missing) EXPECT_FALSE(name.starts_with("image.blocks.")) << name;
}

TEST(FromTimm, AHeadOfTheSameShapeIsNotAProjection) {
  DualConfig config = timm_settings();
  config.retrieval.projection = 5;  // as many as the file has classes
  Made made(config), untouched(config);
  made.start(golden("case_75_weights"));
  EXPECT_TRUE(same_bits(made.parameter("image.head.weight").value, untouched.parameter("image.head.weight").value));
}

TEST(FromTimm, LargerImagesHaveInterpolatedPositions) {
  DualConfig config = timm_settings();
  config.image.image_size = 16;
  Made made(config);
  EXPECT_EQ(made.start(golden("case_75_weights")).adapted, std::vector<std::string>{"image.pos_embed: 2x2 to 4x4"});
}

TEST(FromTimm, ASettingThatDoesNotFitIsNamed) {
  const auto refused = [](const std::function<void(DualConfig&)>& change, std::initializer_list<const char*> parts) {
    DualConfig config = timm_settings();
    change(config);
    Made made(config);
    expect_error([&] { made.start(golden("case_75_weights")); }, parts);
  };
  refused([](DualConfig& c) { c.image.width = 24; }, {"image.cls_token: (1, 1, 12) but the model has (1, 1, 24) (model.width)"});
  refused([](DualConfig& c) { c.image.patch = 2; },
          {"image.patch_embed.proj.weight: (12, 3, 4, 4) but the model has (12, 3, 2, 2) (model.patch)"});
  refused([](DualConfig& c) { c.image.channels = 1; }, {"(model.channels)"});
  refused([](DualConfig& c) { c.image.mlp_ratio = 2; },
          {"image.blocks.0.mlp.fc1.weight: (48, 12) but the model has (24, 12) (model.mlp_ratio)"});
}

/// Files of this engine.
class FromOwn : public ::testing::Test {
 protected:
  ScratchFolder folder_;
  std::string path_ = folder_.file("model.safetensors");

  void save(Made& made) { save_weights(made.bench.ctx, path_, made.model); }
  void save(TinyModel& tiny) { save_weights(tiny.bench.ctx, path_, tiny.model); }
};

TEST_F(FromOwn, ADualEncoderStartsAnother) {
  DualConfig config = small_dual("1", "0,1");
  Made from(config, DType::f32, 1), to(config, DType::f32, 2);
  ASSERT_GT(apart(from.features(), to.features()), 1e-2);
  save(from);
  EXPECT_EQ(to.start(path_).summary(), "");
  EXPECT_EQ(apart(from.features(), to.features()), 0);
}

TEST_F(FromOwn, DenseTowersBecomeExperts) {
  DualConfig dense = small_dual(), sparse = small_dual();
  dense.image.mlp_ratio = dense.text.mlp_ratio = 4;
  sparse = dense;
  give_experts(sparse, "0", "1");
  Made from(dense, DType::f32, 1), to(sparse, DType::f32, 2);
  save(from);
  const LoadReport report = to.start(path_);
  EXPECT_LT(apart(from.features(), to.features()), 1e-5);
  EXPECT_EQ(report.summary(), "");
  EXPECT_EQ(report.upcycled,
            "image tower's block 0: 4 experts each made from the dense network (SVD); "
            "text tower's block 1: 4 experts each made from the dense network (SVD)");
}

TEST_F(FromOwn, AnotherProjectionAndLossAreLeftNew) {
  DualConfig other = small_dual();
  other.retrieval = {.projection = 9, .loss = PairLoss::sigmoid};
  Made from(small_dual(), DType::f32, 1), to(other, DType::f32, 2);
  save(from);
  const LoadReport report = to.start(path_);
  EXPECT_EQ(report.missing, std::vector<std::string>{"logit_bias"});
  EXPECT_EQ(report.adapted, (std::vector<std::string>{"image.head.weight: (6, 12) but the model has (9, 12), left new",
                                                      "text.head.weight: (6, 8) but the model has (9, 8), left new"}));
}

TEST_F(FromOwn, ATextTowerThatDoesNotFitIsNamed) {
  Made from(small_dual(), DType::f32);
  save(from);
  const auto refused = [&](const std::function<void(DualConfig&)>& change, std::initializer_list<const char*> parts) {
    DualConfig config = small_dual();
    change(config);
    Made made(config, DType::f32);
    expect_error([&] { made.start(path_); }, parts);
  };
  refused([](DualConfig& c) { c.text.vocabulary = 40; }, {"text.token_embed: (29, 8) but the model has (40, 8) (text.vocabulary)"});
  refused([](DualConfig& c) { c.text.context = 9; }, {"text.pos_embed: (7, 8) but the model has (9, 8) (text.context)"});
  refused([](DualConfig& c) { c.text.width = 16; }, {"(text.width)"});
  refused([](DualConfig& c) { c.text.mlp_ratio = 2; }, {"text.blocks.0.mlp.fc1.weight", "(text.mlp_ratio)"});
}

/// A classifier whose tower is the image tower of `config`.
VitConfig classifier_of(const DualConfig& config) {
  VitConfig image = config.image;
  image.classes = 5;
  return image;
}

TEST_F(FromOwn, AClassifierGivesItsTower) {
  const DualConfig config = small_dual("1", "1");
  TinyModel from(classifier_of(config), DType::f32, 1);
  Made to(config, DType::f32, 2);
  save(from);
  const LoadReport report = to.start(path_);
  EXPECT_EQ(report.unexpected, (std::vector<std::string>{"head.bias", "head.weight"}));
  EXPECT_EQ(report.upcycled, "");
  for (const char* name : {"cls_token", "pos_embed", "blocks.1.moe.experts.V2", "blocks.1.moe.experts.s1", "norm.bias"})
    EXPECT_TRUE(same_bits(from.parameter(name).value, to.parameter(std::string("image.") + name).value)) << name;
  for (const std::string& name : report.missing)
    EXPECT_TRUE(name == "image.head.weight" || name == "logit_scale" || name.starts_with("text.")) << name;
}

TEST_F(FromOwn, AClassifierTakesTheImageTower) {
  const DualConfig config = small_dual("1", "none");
  Made from(config, DType::f32, 1);
  TinyModel to(classifier_of(config), DType::f32, 2);
  save(from);
  const LoadReport report = init_from_weights(to.bench.ctx, path_, to.model);
  EXPECT_EQ(report.missing, (std::vector<std::string>{"head.weight", "head.bias"}));
  for (const char* name : {"cls_token", "blocks.1.moe.experts.V2", "norm.bias"})
    EXPECT_TRUE(same_bits(to.parameter(name).value, from.parameter(std::string("image.") + name).value)) << name;
}

TEST_F(FromOwn, AFileOfSomethingElseIsRefused) {
  Made made(small_dual(), DType::f32);
  write_safetensors(path_, {NamedTensor{"conv1.weight", Tensor::zeros(made.bench.allocator, {3}, DType::f32)}});
  expect_error([&] { made.start(path_); }, {"no tensor has a name that the model knows (the first is \"conv1.weight\")"});
}

}  // namespace
}  // namespace ermoe::testing
