// Weights on disk: the round trip, what is refused and how, starting from weights of another model, freezing.
#include "models/weights.h"

#include "core/safetensors.h"
#include "ops/orthogonal_step.h"
#include "tests/models/tiny_model.h"
#include "tests/scratch.h"

namespace ermoe::testing {
namespace {

std::string message_of(const std::function<void()>& fn) {
  try {
    fn();
  } catch (const InputError& e) {
    return e.what();
  }
  return "nothing was refused";
}

/// Steps a few times, so that no tensor has its first value.
void train(TinyModel& tiny, int steps, const OptimConfig& optim = {}) {
  Optimizer optimizer(tiny.bench.ctx, tiny.model.arena(), optim, stiefel_method(tiny.model.config().moe.orthogonality));
  TrainStep step(tiny.bench.ctx, tiny.model, optimizer, nullptr, optim.clip);
  for (int i = 0; i < steps; ++i) {
    step.begin(tiny.bench.ctx, 1);
    step.micro_batch(tiny.bench.ctx, tiny.images,
                     [&](const ExecContext& c, const Variable& y) { return tiny.loss_of(c, y, tiny.targets); });
    ASSERT_TRUE(step.finish(tiny.bench.ctx, optim.lr).accepted);
  }
}

Tensor logits_of(TinyModel& tiny) {
  ExecContext ctx = tiny.bench.ctx;
  ctx.mode = Mode::eval;
  ForwardPass pass;
  return tiny.model.forward(ctx, Variable(tiny.images), pass).value;
}

class Weights : public ::testing::Test {
 protected:
  ScratchFolder folder_;
  std::string path_ = folder_.file("model.safetensors");

  /// The saved file with its tensors changed by `change`.
  void rewrite(TinyModel& tiny, const std::function<void(std::vector<NamedTensor>&)>& change) {
    const SafetensorsFile file = SafetensorsFile::open(path_);
    std::vector<NamedTensor> entries;
    for (const std::string& name : file.names()) entries.push_back({name, file.load(name, tiny.bench.allocator, DType::f32)});
    change(entries);
    write_safetensors(path_, entries);
  }
};

std::vector<VitConfig> round_trip_configs() {
  std::vector<VitConfig> configs(4, tiny_config());
  configs[1].moe.basis = Basis::disjoint;
  configs[1].moe.free_experts = 1;
  configs[1].moe.threshold = "0.9";
  configs[1].moe.combine = Combine::softmax;
  configs[2].moe.basis = Basis::disjoint;
  configs[2].moe.rank = 4;  // nothing is left of V1 beside the basis: a tensor without elements
  configs[3].moe.router = RouterKind::vmoe;
  configs[3].moe.expert = ExpertKind::plain;
  for (const RouterKind router : all_routers()) {
    configs.push_back(tiny_config());
    configs.back().moe.router = router;
  }
  return configs;
}

TEST_F(Weights, ComeBackBitForBit) {
  for (const VitConfig& config : round_trip_configs()) {
    TinyModel saved(config, DType::f32, 1), loaded(config, DType::f32, 2);
    train(saved, 3);
    save_weights(saved.bench.ctx, path_, saved.model, {{"format", "ermoe"}});
    load_weights(loaded.bench.ctx, path_, loaded.model);
    expect_same(saved.values(), loaded.values());
    EXPECT_TRUE(same_bits(logits_of(saved), logits_of(loaded)));
  }
}

TEST_F(Weights, HoldFactorsAndNotWhatIsDerivedFromThem) {
  TinyModel tiny(tiny_config(), DType::f32);
  save_weights(tiny.bench.ctx, path_, tiny.model, {{"format", "ermoe"}});
  const SafetensorsFile file = SafetensorsFile::open(path_);
  EXPECT_TRUE(file.has("blocks.1.moe.experts.U1"));
  EXPECT_TRUE(file.has("blocks.1.moe.router.score_mean"));
  EXPECT_FALSE(file.has("blocks.1.moe.experts.W1"));
  EXPECT_FALSE(file.has("blocks.1.moe.router.packed_basis"));
  EXPECT_EQ(file.metadata().at("format"), "ermoe");
}

TEST_F(Weights, OfADoubleModelAreStoredSingle) {
  TinyModel tiny;
  save_weights(tiny.bench.ctx, path_, tiny.model);
  const SafetensorsFile file = SafetensorsFile::open(path_);
  EXPECT_EQ(file.at("head.weight").type, StoredType::f32);
}

TEST_F(Weights, AMissingTensorIsNamed) {
  TinyModel tiny(tiny_config(), DType::f32);
  save_weights(tiny.bench.ctx, path_, tiny.model);
  rewrite(tiny, [](auto& entries) { std::erase_if(entries, [](const NamedTensor& e) { return e.name == "blocks.1.moe.experts.s2"; }); });
  EXPECT_EQ(message_of([&] { load_weights(tiny.bench.ctx, path_, tiny.model); }), path_ + ": blocks.1.moe.experts.s2 is missing");
}

TEST_F(Weights, AnUnexpectedTensorIsNamed) {
  TinyModel tiny(tiny_config(), DType::f32);
  save_weights(tiny.bench.ctx, path_, tiny.model);
  rewrite(tiny, [&](auto& entries) {
    entries.push_back({"blocks.7.norm1.weight", Tensor::zeros(tiny.bench.allocator, {16}, DType::f32)});
  });
  EXPECT_EQ(message_of([&] { load_weights(tiny.bench.ctx, path_, tiny.model); }), path_ + ": blocks.7.norm1.weight is not in the model");
}

TEST_F(Weights, AnotherShapeIsNamedWithBoth) {
  TinyModel tiny(tiny_config(), DType::f32);
  save_weights(tiny.bench.ctx, path_, tiny.model);
  rewrite(tiny, [&](auto& entries) {
    for (NamedTensor& e : entries)
      if (e.name == "norm.bias") e.tensor = Tensor::zeros(tiny.bench.allocator, {17}, DType::f32);
  });
  EXPECT_EQ(message_of([&] { load_weights(tiny.bench.ctx, path_, tiny.model); }), path_ + ": norm.bias is (17) but the model has (16)");
}

TEST_F(Weights, ARefusedFileChangesNothing) {
  TinyModel tiny(tiny_config(), DType::f32), other(tiny_config(), DType::f32, 2);
  save_weights(other.bench.ctx, path_, other.model);
  rewrite(other, [](auto& entries) { std::erase_if(entries, [](const NamedTensor& e) { return e.name == "norm.bias"; }); });
  const Snapshot before = tiny.values();
  EXPECT_THROW(load_weights(tiny.bench.ctx, path_, tiny.model), InputError);
  expect_same(before, tiny.values());
}

TEST_F(Weights, AFileThatIsNotThereIsNamed) {
  TinyModel tiny(tiny_config(), DType::f32);
  const std::string missing = folder_.file("nothing.safetensors");
  EXPECT_NE(message_of([&] { load_weights(tiny.bench.ctx, missing, tiny.model); }).find(missing), std::string::npos);
  EXPECT_NE(message_of([&] { init_from_weights(tiny.bench.ctx, missing, tiny.model); }).find(missing), std::string::npos);
}

TEST_F(Weights, StartAModelWithAnotherHeadAndGrid) {
  VitConfig large = tiny_config();
  large.image_size = 12;
  large.classes = 7;
  TinyModel from(tiny_config(), DType::f32, 1), to(large, DType::f32, 2);
  save_weights(from.bench.ctx, path_, from.model);
  const Snapshot before = to.values();
  const LoadReport report = init_from_weights(to.bench.ctx, path_, to.model);
  EXPECT_TRUE(report.missing.empty());
  EXPECT_TRUE(report.unexpected.empty());
  EXPECT_EQ(report.adapted, (std::vector<std::string>{"pos_embed: 2x2 to 3x3", "head.weight: (4, 16) but the model has (7, 16), left new",
                                                      "head.bias: (4) but the model has (7), left new"}));
  const Snapshot after = to.values(), source = from.values();
  for (const auto& [name, value] : after) {
    if (name == "pos_embed") continue;
    EXPECT_TRUE(same_bits(value, (name.starts_with("head.") ? before : source).at(name))) << name;
  }
  EXPECT_TRUE(same_bits(after.at("pos_embed"), resize_positions(source.at("pos_embed"), 1, {2, 2}, 1, {3, 3})));
}

TEST_F(Weights, OfADenseModelStartOneWithExperts) {
  VitConfig dense = tiny_config();
  dense.moe.layers = "none";
  TinyModel from(dense, DType::f32, 1), to(tiny_config(), DType::f32, 2);
  save_weights(from.bench.ctx, path_, from.model);
  const Snapshot before = to.values();
  const LoadReport report = init_from_weights(to.bench.ctx, path_, to.model, {.experts = InitOptions::Experts::left_new});
  EXPECT_EQ(report.missing.size(), 14u);
  for (const std::string& name : report.missing) {
    EXPECT_TRUE(name.starts_with("blocks.1.moe.")) << name;
    const std::string key = before.contains(name) ? name : "buffer " + name;
    EXPECT_TRUE(same_bits(to.values().at(key), before.at(key))) << name;
  }
  EXPECT_EQ(report.unexpected, (std::vector<std::string>{"blocks.1.mlp.fc1.bias", "blocks.1.mlp.fc1.weight", "blocks.1.mlp.fc2.bias",
                                                         "blocks.1.mlp.fc2.weight"}));
  EXPECT_TRUE(report.adapted.empty());
  EXPECT_TRUE(same_bits(to.values().at("blocks.1.attn.qkv.weight"), from.values().at("blocks.1.attn.qkv.weight")));
  EXPECT_EQ(report.summary(),
            "14 not in the file (blocks.1.moe.router.mean_x, blocks.1.moe.router.mean_c, blocks.1.moe.router.score_mean and 11 more); "
            "4 not in the model (blocks.1.mlp.fc1.bias, blocks.1.mlp.fc1.weight, blocks.1.mlp.fc2.bias and 1 more)");
}

TEST_F(Weights, WithAnotherInnerShapeDoNotStartAModel) {
  VitConfig wide = tiny_config();
  wide.moe.hidden = 32;
  TinyModel from(tiny_config(), DType::f32), to(wide, DType::f32);
  save_weights(from.bench.ctx, path_, from.model);
  EXPECT_EQ(message_of([&] { init_from_weights(to.bench.ctx, path_, to.model); }),
            path_ + ": blocks.1.moe.experts.b1: (4, 24) but the model has (4, 32) (moe.hidden)");
}

TEST_F(Weights, OfSomethingElseDoNotStartAModel) {
  TinyModel tiny(tiny_config(), DType::f32);
  write_safetensors(path_, {NamedTensor{"conv1.weight", Tensor::zeros(tiny.bench.allocator, {3}, DType::f32)}});
  EXPECT_EQ(message_of([&] { init_from_weights(tiny.bench.ctx, path_, tiny.model); }),
            path_ + ": no tensor has a name that the model knows (the first is \"conv1.weight\")");
}

/// Positions (1, prefix + g², 2) whose first channel is `at(x, y)` and whose second is constant.
Tensor positions(TestBench& bench, int64_t prefix, int64_t grid, const std::function<double(double, double)>& at) {
  const Tensor p = Tensor::zeros(bench.allocator, {1, prefix + grid * grid, 2}, DType::f64);
  for (int64_t i = 0; i < prefix * 2; ++i) p.data<double>()[i] = 100 + static_cast<double>(i);
  for (int64_t y = 0; y < grid; ++y)
    for (int64_t x = 0; x < grid; ++x) {
      double* row = p.data<double>() + (prefix + y * grid + x) * 2;
      row[0] = at((static_cast<double>(x) + 0.5) / static_cast<double>(grid), (static_cast<double>(y) + 0.5) / static_cast<double>(grid));
      row[1] = 0.25;
    }
  return p;
}

TEST(ResizePositions, KeepsTheSameGrid) {
  TestBench bench;
  const Tensor p = random_input(bench.ctx, {{1, 26, 3}}, DType::f32, RngKey{1});
  EXPECT_TRUE(same_bits(resize_positions(p, 1, {5, 5}, 1, {5, 5}), p));
}

TEST(ResizePositions, KeepsConstantsPrefixAndInnerRamps) {
  TestBench bench;
  const auto ramp = [](double x, double y) { return 3 * x - 2 * y; };
  for (int64_t grid : {6, 11, 16}) {
    const Tensor resized = resize_positions(positions(bench, 1, 8, ramp), 1, {8, 8}, 1, {grid, grid}),
                 exact = positions(bench, 1, grid, ramp);
    for (int64_t i = 0; i < resized.shape()[1]; ++i) {
      const double *got = resized.data<double>() + i * 2, *want = exact.data<double>() + i * 2;
      EXPECT_NEAR(got[1], want[1], 1e-14);
      // Cubic convolution reproduces straight lines where all four neighbours exist.
      const auto inside = [&](int64_t k) { return (static_cast<double>(k) + 0.5) / static_cast<double>(grid); };
      const double x = inside((i - 1) % grid), y = inside((i - 1) / grid);
      const bool inner = i == 0 || (std::min(x, y) > 1.5 / 8 && std::max(x, y) < 6.5 / 8);
      EXPECT_NEAR(got[0], want[0], inner ? 1e-13 : 0.2) << i;
    }
  }
}

TEST(ResizePositions, AddsAndDropsAPrefix) {
  TestBench bench;
  const auto ramp = [](double x, double y) { return x + y; };
  const Tensor with = positions(bench, 1, 4, ramp), without = positions(bench, 0, 4, ramp);
  EXPECT_TRUE(same_bits(resize_positions(with, 1, {4, 4}, 0, {4, 4}), without));
  const Tensor added = resize_positions(without, 0, {4, 4}, 1, {4, 4});
  EXPECT_EQ(added.data<double>()[0], 0);
  EXPECT_TRUE(same_bits(added.reshape({17, 2}).slice(1, 17).clone(), without.reshape({16, 2})));
}

TEST(Freeze, TakesPatternsAndCounts) {
  TinyModel tiny;
  EXPECT_EQ(freeze(tiny.bench.ctx, tiny.model, {"blocks.0.*"}), 12);
  EXPECT_EQ(freeze(tiny.bench.ctx, tiny.model, {"blocks.0.attn.*", "*norm.bias"}), 1);  // the rest was frozen before
  EXPECT_EQ(freeze(tiny.bench.ctx, tiny.model, {"blocks.?.norm2.weight"}), 1);
  EXPECT_TRUE(tiny.parameter("blocks.0.mlp.fc1.weight").frozen);
  EXPECT_TRUE(tiny.parameter("norm.bias").frozen);
  EXPECT_FALSE(tiny.parameter("norm.weight").frozen);
  EXPECT_FALSE(tiny.parameter("blocks.1.attn.qkv.weight").frozen);
}

TEST(Freeze, APatternForNothingIsNamed) {
  TinyModel tiny;
  for (const char* pattern : {"block.*", "", "head", "*.W1"})  // W1 is derived: its factors are what can be frozen
    EXPECT_EQ(message_of([&] { freeze(tiny.bench.ctx, tiny.model, {pattern}); }),
              fmt::format("--freeze {}: no parameter has such a name", pattern));
}

TEST(Freeze, FrozenParametersStayAndTakeNoGradient) {
  for (Orthogonality mode : {Orthogonality::newton_schulz, Orthogonality::penalty}) {
    VitConfig config = tiny_config();
    config.moe.orthogonality = mode;
    config.moe.penalty = 10;
    TinyModel tiny(config);
    freeze(tiny.bench.ctx, tiny.model, {"*.experts.U?", "*.experts.V?", "patch_embed.*"});
    const Snapshot before = tiny.values();
    tiny.differentiate();
    tiny.model.discard_step();
    for (const Parameter* p : tiny.trained()) EXPECT_EQ(largest_of(p->grad) == 0, p->frozen) << p->name;
    tiny.model.refresh(tiny.bench.ctx);
    train(tiny, 2);
    for (const Parameter* p : tiny.trained()) EXPECT_EQ(same_bits(p->value, before.at(p->name)), p->frozen) << p->name;
  }
}

TEST(Freeze, AFrozenRestBesideATrainedBasisStays) {
  VitConfig config = tiny_config();
  config.moe.basis = Basis::disjoint;
  config.moe.basis_rank = 3;
  TinyModel tiny(config);
  freeze(tiny.bench.ctx, tiny.model, {"*.router.basis", "*.V1"});
  const Snapshot before = tiny.values();
  train(tiny, 2);
  EXPECT_TRUE(same_bits(tiny.parameter("blocks.1.moe.experts.V1").value, before.at("blocks.1.moe.experts.V1")));
  EXPECT_TRUE(same_bits(tiny.parameter("blocks.1.moe.router.basis").value, before.at("blocks.1.moe.router.basis")));
}

}  // namespace
}  // namespace ermoe::testing
