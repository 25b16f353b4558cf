// Dual encoders against an independent float64 model (tests/golden/make_clip_golden.py), against differences, and in training.
#include "models/dual_encoder.h"

#include "models/config_rules.h"
#include "models/recorded_step.h"
#include "models/weights.h"
#include "tests/models/dual_fixture.h"
#include "tests/models/tiny_model.h"
#include "tests/ops/expect_error.h"
#include "tests/scratch.h"

namespace ermoe::testing {
namespace {

class Dual {
 public:
  explicit Dual(const DualConfig& config, DType dtype = DType::f64, const PairLossFn& loss = pair_loss) : model(config, loss) {
    model.allocate(bench.ctx, dtype);
    model.init(bench.ctx, RngKey{1});
    images = random_input(bench.ctx, {input_shape(config.image, 4)}, dtype, RngKey{3});
    tokens = Tensor::from<int32_t>(bench.allocator, {4, 7}, four_captions());
  }

  MicroBatch batch() const { return {.images = images, .targets = {}, .allow = {}, .tokens = tokens}; }

  /// Takes the model off its starting point, where biases hide mistakes, and embeddings are so short that norms make their slopes steep.
  void liven() {
    for (Parameter* p : trained()) {
      if (p->orthonormal) continue;
      const Tensor noise = random_input(bench.ctx, {p->shape}, DType::f64, key_of(RngKey{2}, p->name));
      const double size = p->name.find("embed") == std::string::npos ? 0.1 : 1;
      for (int64_t i = 0; i < p->shape.numel(); ++i) p->value.data<double>()[i] += size * noise.data<double>()[i];
    }
    model.refresh(bench.ctx);
  }

  double loss() {
    ForwardPass alone;
    double value = scalar_of(model.loss(bench.ctx, batch(), {}, alone).value);
    for (const auto& [name, term] : alone.losses) value += scalar_of(term);
    model.discard_step();
    return value;
  }

  /// Gradients of all parameters; returns the loss.
  double differentiate() {
    model.arena().begin_gradients();
    Tape tape;
    const ExecContext ctx = bench.ctx.with_tape(&tape);
    pass = {};
    const Variable value = model.loss(ctx, batch(), {}, pass);
    const Tensor seed = ctx.empty(value.shape(), value.dtype());
    fill(seed, 1);
    tape.backward(ctx, value, seed);
    for (auto role : {Parameter::Role::direct, Parameter::Role::derived}) model.arena().end_gradients(role);
    model.pull_back(bench.ctx);
    model.arena().end_gradients(Parameter::Role::factor);
    return scalar_of(value.value);
  }

  std::vector<Parameter*> trained() {
    std::vector<Parameter*> found = parameters_of(model);
    std::erase_if(found, [](const Parameter* p) { return p->role == Parameter::Role::derived || p->shape.numel() == 0; });
    return found;
  }

  TestBench bench;
  DualEncoder model;
  Tensor images, tokens;
  ForwardPass pass;
};

double largest_difference(const Tensor& a, const std::vector<double>& y) {
  const auto x = to_doubles(a);
  EXPECT_EQ(x.size(), y.size());
  double largest = 0;
  for (size_t i = 0; i < x.size(); ++i) largest = std::isnan(x[i]) ? INFINITY : std::max(largest, std::abs(x[i] - y[i]));
  return largest;
}

struct GoldenDual {
  const char* file;
  const char *image_experts, *text_experts;
  PairLoss loss;
};

void expect_golden(const GoldenDual& golden, DType dtype, double tolerance) {
  const SafetensorsFile file = SafetensorsFile::open(std::string(ERMOE_SOURCE_DIR) + "/tests/golden/clip/" + golden.file);
  DualConfig config = small_dual(golden.image_experts, golden.text_experts);
  config.retrieval.loss = golden.loss;
  Dual dual(config, dtype);
  TestBench& bench = dual.bench;
  const auto expected = [&](const std::string& name) { return to_doubles(file.load(name, bench.allocator, DType::f64)); };
  for (Parameter* p : dual.trained()) file.load_part("param." + p->name, 0, p->value);
  dual.model.refresh(bench.ctx);
  dual.images = file.load("images", bench.allocator, dtype);
  dual.tokens = file.load("tokens", bench.allocator, DType::i32);
  ForwardPass pass;
  ExecContext eval = bench.ctx;
  eval.mode = Mode::eval;
  EXPECT_LE(largest_difference(dual.model.image_features(eval, Variable(dual.images), pass).value, expected("image_features")), tolerance);
  EXPECT_LE(largest_difference(dual.model.text_features(eval, dual.tokens, pass).value, expected("text_features")), tolerance);
  EXPECT_NEAR(dual.differentiate(), expected("loss")[0], tolerance);
  for (const RoutingRecord& route : dual.pass.routes) {
    const Tensor ids = file.load("ids." + dual.model.name_of_block(route.block), bench.allocator, DType::i32);
    EXPECT_EQ(to_vector<int32_t>(ids), to_vector<int32_t>(route.plan.expert_ids)) << dual.model.name_of_block(route.block);
  }
  double largest = 0;
  for (Parameter* p : dual.trained())
    for (const double g : expected("grad." + p->name)) largest = std::max(largest, std::abs(g));
  for (Parameter* p : dual.trained()) EXPECT_LE(largest_difference(p->grad, expected("grad." + p->name)), tolerance * largest) << p->name;
  dual.model.accept_step(bench.ctx);
  for (const Buffer* b : buffers_of(dual.model))
    if (file.has("buffer." + b->name)) {
      EXPECT_LE(largest_difference(b->value, expected("buffer." + b->name)), tolerance) << b->name;
    }
}

class DualGolden : public ::testing::TestWithParam<GoldenDual> {};

TEST_P(DualGolden, Agrees) {
  expect_golden(GetParam(), DType::f64, 1e-9);
  expect_golden(GetParam(), DType::f32, 1e-4);
}

INSTANTIATE_TEST_SUITE_P(Files, DualGolden,
                         ::testing::Values(GoldenDual{"case_72.safetensors", "none", "none", PairLoss::info_nce},
                                           GoldenDual{"case_73.safetensors", "1", "0,1", PairLoss::info_nce},
                                           GoldenDual{"case_74.safetensors", "none", "none", PairLoss::sigmoid}),
                         [](const auto& which) { return std::string(which.param.file).substr(0, 7); });

/// Each parameter's gradient at a few elements against central differences.
void expect_gradients(const DualConfig& config) {
  Dual dual(config);
  dual.liven();
  dual.differentiate();
  dual.model.discard_step();
  std::map<std::string, Tensor> gradients;
  double overall = 0;
  for (const Parameter* p : dual.trained()) {
    gradients[p->name] = p->grad.clone();
    for (double g : to_doubles(p->grad)) overall = std::max(overall, std::abs(g));
  }
  for (Parameter* p : dual.trained()) {
    double scale = 1e-4 * overall;
    for (double g : to_doubles(gradients.at(p->name))) scale = std::max(scale, std::abs(g));
    for (uint64_t probe = 0; probe < 4; ++probe) {
      const auto i = static_cast<int64_t>(uniform_int(key_of(RngKey{9}, p->name), probe, static_cast<uint64_t>(p->shape.numel())));
      double& x = p->value.data<double>()[i];
      const double before = x, h = 1e-5;
      const auto at = [&](double value) {
        x = value;
        dual.model.refresh(dual.bench.ctx);
        return dual.loss();
      };
      const auto slope = [&](double step) { return (at(before + step) - at(before - step)) / (2 * step); };
      const double numeric = (4 * slope(h) - slope(2 * h)) / 3;  // without the cubic term: cosines of short vectors bend
      x = before;
      EXPECT_NEAR(numeric, gradients.at(p->name).data<double>()[i], 1e-6 * scale) << p->name << " element " << i;
    }
  }
}

TEST(DualEncoder, GradientsAreDifferences) {
  expect_gradients(small_dual());
  expect_gradients(small_dual("every:1", "last:1"));
}

TEST(DualEncoder, GradientsOfOtherBlocksAreDifferences) {
  DualConfig clip = small_dual();
  clip.image.pre_norm = true;
  clip.image.patch_bias = PatchBias::off;
  clip.image.activation = Activation::quick_gelu;
  clip.image.norm_eps = 1e-5;
  expect_gradients(clip);
  DualConfig again = small_dual("1", "0,1");
  again.image.recompute = true;
  again.image.pool = Pool::average;
  again.image.positions = Positions::sincos;
  again.retrieval.loss = PairLoss::sigmoid;
  expect_gradients(again);
}

TEST(DualEncoder, TextHasEveryRouterThatLeavesPaddingAlone) {
  for (const RouterKind router : all_routers()) {
    if (router == RouterKind::soft) continue;
    SCOPED_TRACE(enum_name(router));
    DualConfig config = small_dual("none", "0,1");
    config.image.moe.router = router;
    config.image.moe.group_images = 1;
    config.image.moe.load_weight = 0;  // its thresholds have no gradient
    if (router != RouterKind::ermoe) config.image.moe.basis = Basis::untied;
    expect_gradients(config);
    Dual dual(config);
    dual.differentiate();
    ASSERT_EQ(dual.pass.routes.size(), 2u);
    for (const RoutingRecord& route : dual.pass.routes)
      for (int64_t i = 4 * route.plan.slots; i < 7 * route.plan.slots; ++i) EXPECT_LT(route.plan.expert_ids.data<int32_t>()[i], 0);
  }
}

TEST(DualEncoder, FeaturesHaveLengthOneAndPaddingSaysNothing) {
  Dual dual(small_dual("1", "0,1"));
  ForwardPass pass;
  ExecContext eval = dual.bench.ctx;
  eval.mode = Mode::eval;
  const auto features = to_doubles(dual.model.text_features(eval, dual.tokens, pass).value);
  ASSERT_EQ(features.size(), 24u);
  double square = 0;
  for (int64_t i = 0; i < 6; ++i) square += features[static_cast<size_t>(i)] * features[static_cast<size_t>(i)];
  EXPECT_NEAR(square, 1, 1e-14);
  // Nor does it matter what lies there, or whether it is there at all.
  std::vector<int32_t> other = four_captions();
  other[4] = other[5] = 9;
  const Tensor padded = Tensor::from<int32_t>(dual.bench.allocator, {4, 7}, other);
  EXPECT_EQ(to_doubles(dual.model.text_features(eval, padded, pass).value), features);
  const std::vector<int32_t> first(other.begin(), other.begin() + 4);
  const auto alone = to_doubles(dual.model.text_features(eval, Tensor::from<int32_t>(dual.bench.allocator, {1, 4}, first), pass).value);
  for (size_t i = 0; i < 6; ++i) EXPECT_NEAR(alone[i], features[i], 1e-14);
}

TEST(DualEncoder, PaddingGoesToNoExpertAndIntoNoStatistics) {
  Dual dual(small_dual("1", "0,1")), twin(small_dual("1", "0,1"));
  std::vector<int32_t> other = four_captions();
  for (const size_t i : {4, 5, 6, 16, 17}) other[i] = 13;
  twin.tokens = Tensor::from<int32_t>(twin.bench.allocator, {4, 7}, other);
  EXPECT_EQ(dual.differentiate(), twin.differentiate());
  for (const RoutingRecord& route : dual.pass.routes) {
    if (route.block < 2) continue;  // of the image tower
    for (int64_t n = 0; n < 28; ++n)
      EXPECT_EQ(route.plan.expert_ids.data<int32_t>()[2 * n] < 0, (n >= 4 && n < 7) || (n >= 16 && n < 21)) << n;
  }
  for (Dual* d : {&dual, &twin}) d->model.accept_step(d->bench.ctx);
  const auto a = buffers_of(dual.model), b = buffers_of(twin.model);
  ASSERT_FALSE(a.empty());
  for (size_t i = 0; i < a.size(); ++i) EXPECT_EQ(to_doubles(a[i]->value), to_doubles(b[i]->value)) << a[i]->name;
}

/// Every term that a router can have, in captions of four tokens with their ends, beside the same with padding behind them.
TEST(DualEncoder, PaddingIsNotInAddedTerms) {
  for (const RouterKind router : all_routers()) {
    if (router == RouterKind::soft || router == RouterKind::expert_choice) continue;  // expert choice takes more of more tokens
    SCOPED_TRACE(enum_name(router));
    DualConfig config = small_dual("none", "0,1");
    MoeConfig& moe = config.image.moe;
    moe.router = router;
    moe.noise = 0;  // drawn by a token's place
    moe.group_images = 2;
    moe.balance_weight = 0.3;
    if (router != RouterKind::switch_lbl) moe.extra_balance = 0.3;
    moe.variance_weight = 20;
    moe.orthogonal_output_weight = 0.5;
    if (router != RouterKind::ermoe) moe.basis = Basis::untied;
    const VitConfig blocks = text_blocks(config.image, config.text);
    if (make_router(moe, expert_dims(blocks), nullptr)->has_logits()) moe.z_weight = 0.1;
    Dual plain(config), padded(config);
    // As many tokens of each pair of captions: a group's mean is then the same number's, whatever the groups.
    plain.tokens =
        Tensor::from<int32_t>(plain.bench.allocator, {4, 4}, std::vector<int32_t>{27, 3, 9, 28, 27, 5, 6, 28, 27, 7, 8, 28, 27, 1, 2, 28});
    padded.tokens = Tensor::from<int32_t>(
        padded.bench.allocator, {4, 7},
        std::vector<int32_t>{27, 3, 9, 28, 0, 4, 0, 27, 5, 6, 28, 28, 28, 28, 27, 7, 8, 28, 9, 9, 9, 27, 1, 2, 28, 3, 2, 1});
    plain.liven();
    padded.liven();
    EXPECT_NEAR(plain.differentiate(), padded.differentiate(), 1e-13);
    ASSERT_EQ(plain.pass.losses.size(), padded.pass.losses.size());
    EXPECT_GE(plain.pass.losses.size(), 6u);
    for (size_t i = 0; i < plain.pass.losses.size(); ++i) {
      const double want = scalar_of(plain.pass.losses[i].second);
      EXPECT_NEAR(scalar_of(padded.pass.losses[i].second), want, 1e-11 * std::abs(want)) << plain.pass.losses[i].first;
    }
    const auto a = plain.trained(), b = padded.trained();
    double largest = 0;
    for (const Parameter* p : a)
      for (const double g : to_doubles(p->grad)) largest = std::max(largest, std::abs(g));
    for (size_t i = 0; i < a.size(); ++i) EXPECT_LE(largest_difference(a[i]->grad, to_doubles(b[i]->grad)), 1e-10 * largest) << a[i]->name;
  }
}

TEST(DualEncoder, DepthsFollowTheOrderOfUse) {
  Dual dual(small_dual("1", "0"));
  const DualEncoder& m = dual.model;
  EXPECT_EQ(m.depth_of("image.pos_embed"), 0);
  EXPECT_EQ(m.depth_of("image.blocks.1.attn.qkv.weight"), 2);
  EXPECT_EQ(m.depth_of("image.head.weight"), 3);
  EXPECT_EQ(m.depth_of("text.token_embed"), 4);
  EXPECT_EQ(m.depth_of("text.blocks.0.moe.experts.U1"), 5);
  EXPECT_EQ(m.depth_of("text.norm.weight"), 7);
  EXPECT_EQ(m.depth_of("logit_scale"), 7);
  EXPECT_EQ(m.last_depth(), 7);
  for (MoeLayer* layer : dual.model.moe_layers())
    EXPECT_EQ(m.depth_of_block(layer->block()), m.depth_of(m.name_of_block(layer->block()) + ".moe"));
  EXPECT_EQ(m.layers_above("text.token_embed"), 3);
  EXPECT_EQ(m.layers_above("image.blocks.1.norm1.bias"), 1);
  EXPECT_EQ(m.layers_above("logit_scale"), 0);
}

TEST(DualEncoder, TrainingLowersTheLossAndKeepsTheScaleWithinBounds) {
  for (const char* experts : {"none", "0,1"}) {
    Dual dual(small_dual(experts, experts));
    dual.model.log_scale().value.data<double>()[0] = DualEncoder::most_log_scale;
    const OptimConfig optim{.lr = 3e-3};
    dual.model.scale_learning_rates(optim);
    Optimizer optimizer(dual.bench.ctx, dual.model.arena(), optim, StiefelMethod::newton_schulz);
    MovingAverage average(dual.bench.ctx, dual.model.arena(), 0.9);
    TrainStep step(dual.bench.ctx, dual.model, optimizer, &average, optim.clip);
    double first = 0, last = 0;
    for (int i = 0; i < 40; ++i) {
      step.begin(dual.bench.ctx, 1);
      step.micro_batch(dual.bench.ctx, dual.batch(), {});
      const StepReport report = step.finish(dual.bench.ctx, optim.lr);
      ASSERT_TRUE(report.accepted) << report.fault;
      (i == 0 ? first : last) = report.loss;
      EXPECT_LE(dual.model.log_scale().value.data<double>()[0], DualEncoder::most_log_scale);
    }
    EXPECT_LT(last, 0.1 * first) << experts;
    dual.model.log_scale().value.data<double>()[0] = -1;
    dual.model.after_step(dual.bench.ctx);
    EXPECT_EQ(dual.model.log_scale().value.data<double>()[0], 0);
  }
}

TEST(DualEncoder, BeginsAsClipAndSiglipDo) {
  Dual clip(small_dual());
  EXPECT_NEAR(clip.model.log_scale().value.data<double>()[0], std::log(1 / 0.07), 1e-15);
  DualConfig config = small_dual();
  config.retrieval.loss = PairLoss::sigmoid;
  Dual siglip(config);
  EXPECT_NEAR(siglip.model.log_scale().value.data<double>()[0], std::log(10.0), 1e-15);
  for (const Parameter* p : parameters_of(siglip.model)) {
    if (!p->name.starts_with("logit_")) continue;
    EXPECT_FALSE(p->decay);
    EXPECT_NEAR(p->value.data<double>()[0], p->name == "logit_bias" ? -10 : std::log(10.0), 1e-15);
  }
}

TEST(DualEncoder, WeightsComeBackFromAFile) {
  ScratchFolder folder;
  Dual dual(small_dual("1", "0,1"), DType::f32), other(small_dual("1", "0,1"), DType::f32);
  other.model.init(other.bench.ctx, RngKey{77});
  save_weights(dual.bench.ctx, folder.file("m.safetensors"), dual.model);
  load_weights(other.bench.ctx, folder.file("m.safetensors"), other.model);
  EXPECT_EQ(dual.loss(), other.loss());
}

TEST(DualEncoder, SettingsThatCannotWorkAreNamed) {
  const auto refuse = [](const std::function<void(DualConfig&)>& change, std::initializer_list<const char*> parts) {
    DualConfig config = small_dual("1", "0,1");
    change(config);
    expect_error([&] { DualEncoder model(config); }, parts);
  };
  refuse([](DualConfig& c) { c.text.heads = 3; }, {"text.heads", "3", "8"});
  refuse([](DualConfig& c) { c.text.vocabulary = 0; }, {"text.vocabulary", "known"});
  refuse([](DualConfig& c) { c.text.end_token = 29; }, {"text.end_token", "29"});
  refuse([](DualConfig& c) { c.text.moe_layers = "2"; }, {"text tower", "block 2"});
  refuse([](DualConfig& c) { c.image.moe.router = RouterKind::soft; }, {"text.moe_layers", "soft"});
  refuse([](DualConfig& c) { c.image.moe.context = Context::attention_mean; }, {"text.moe_layers", "attention_mean"});
  refuse([](DualConfig& c) { c.image.moe.free_experts = 1; }, {"text.moe_layers", "moe.free_experts"});
  refuse(
      [](DualConfig& c) {
        c.image.moe.basis = Basis::disjoint;
        c.image.moe.experts = 5;
      },
      {"text tower", "moe.basis_rank", "5 experts"});
  refuse([](DualConfig& c) { c.image.activation = Activation::quick_gelu; }, {"model.activation", "quick_gelu"});
  refuse([](DualConfig& c) { c.image.pool = Pool::flatten; }, {"model.pool", "flatten"});
}

#if defined(ERMOE_WITH_CUDA)

/// A contrastive loss of ops that GPUs have: cosines are multiplied by the parameter itself.
Variable plain_loss(const ExecContext& ctx, const Pairs& pairs, const Tensor& own) {
  const Variable logits = pair_logits(ctx, pairs, pairs.log_scale);
  return scale(ctx, add(ctx, cross_entropy(ctx, logits, own), cross_entropy(ctx, transpose(ctx, logits), own)), 0.5);
}

/// Losses of ten steps, and the parameters after them; of `length` tokens a caption.
struct GpuSteps {
  /// With terms that leave padding out.
  static DualConfig config() {
    DualConfig c = small_dual("0,1", "0,1");
    c.image.moe.extra_balance = c.image.moe.z_weight = c.image.moe.orthogonal_output_weight = 0.1;
    c.image.moe.variance_weight = 1;
    return c;
  }

  GpuSteps(DType compute, int64_t length, Gpu* recorder) : own(identity(bench.ctx, 4, DType::f32)) {
    Dual host(config(), DType::f32, [this](const ExecContext& c, const Pairs& p) { return plain_loss(c, p, own); });
    host.model.move_to(bench.ctx, compute, GradWrites::once);
    const OptimConfig optim;
    Optimizer optimizer(bench.ctx, host.model.arena(), optim, StiefelMethod::newton_schulz);
    TrainStep step(bench.ctx, host.model, optimizer, nullptr, optim.clip);
    RecordedStep runner(step, recorder, {});
    for (uint64_t i = 0; i < 10; ++i) {
      const Tensor images = random_input(host.bench.ctx, {{4, 3, 8, 8}}, DType::f32, RngKey{5}.fold(i));
      std::vector<int32_t> words;
      for (int64_t w = 0; w < 28; ++w)
        if (w % 7 < length) words.push_back(w == 1 ? static_cast<int32_t>(i) : four_captions()[static_cast<size_t>(w)]);
      const MicroBatch batch{.images = on_device_of(bench.ctx, images),
                             .targets = {},
                             .allow = {},
                             .tokens = Tensor::from<int32_t>(bench.allocator, {4, length}, words)};
      const StepReport report = runner.run(
          steps.ctx, 1, [&](int64_t) { return batch; }, optim.lr);
      losses.insert(losses.end(), {report.loss, report.extra_loss});
    }
    recorded = runner.recorded();
    for (const Parameter* p : host.trained()) values[p->name] = to_doubles(on_host(bench.ctx, p->value));
    test_gpu()->synchronize();
  }

  GpuBench bench, steps;
  Tensor own;
  std::vector<double> losses;
  std::map<std::string, std::vector<double>> values;
  bool recorded = false;
};

void expect_recorded_steps() {
  for (DType compute : {DType::f32, DType::bf16})
    for (int64_t length : {7, 5}) {
      const GpuSteps eager(compute, length, nullptr), recorded(compute, length, test_gpu());
      EXPECT_TRUE(recorded.recorded);
      EXPECT_EQ(eager.losses, recorded.losses);
      EXPECT_EQ(eager.values, recorded.values);
    }
}

/// Features on a GPU are those of a CPU.
void expect_gpu_features() {
  Dual host(small_dual("0,1", "0,1"), DType::f32), there(small_dual("0,1", "0,1"), DType::f32);
  GpuBench gpu;
  there.model.move_to(gpu.ctx, DType::f32);
  ForwardPass pass;
  const auto features = [&](Dual& d, const ExecContext& ctx) {
    ExecContext eval = ctx;
    eval.mode = Mode::eval;
    const Pairs pairs = d.model.pairs(eval, on_device_of(ctx, d.images), on_device_of(ctx, d.tokens), pass);
    std::vector<double> all = to_doubles(on_host(ctx, pairs.image.value));
    for (double v : to_doubles(on_host(ctx, pairs.text.value))) all.push_back(v);
    return all;
  };
  const auto a = features(host, host.bench.ctx), b = features(there, gpu.ctx);
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-5);
}

TEST(DualEncoderOnGpu, RecordedStepsAreTheSteps) { ERMOE_NEEDS_GPU(expect_recorded_steps()); }
TEST(DualEncoderOnGpu, FeaturesAreTheCpus) { ERMOE_NEEDS_GPU(expect_gpu_features()); }

#endif

}  // namespace
}  // namespace ermoe::testing
