// The vision transformer on volumes: the same model as on images, trained towards a number.
#include "core/safetensors.h"
#include "models/weights.h"
#include "tests/gpu_bench.h"
#include "tests/models/tiny_training.h"
#include "tests/scratch.h"

namespace ermoe::testing {
namespace {

VitConfig tiny_volume(std::vector<int64_t> sides) {
  VitConfig config = tiny_config();
  config.dimensions = 3;
  config.image_size = 0;
  config.volume = std::move(sides);
  return config;
}

VitConfig tiny_regression() {
  VitConfig config = tiny_config();
  config.dimensions = 3;
  config.classes = 1;
  return config;
}

std::vector<LossConfig> regressions() {
  std::vector<LossConfig> losses(3);
  losses[0].kind = LossKind::l1;
  losses[1].kind = LossKind::l2;
  losses[2].kind = LossKind::huber;
  losses[2].delta = 0.5;
  return losses;
}

std::string refusal_of(const std::function<void(VitConfig&)>& change) {
  VitConfig config = tiny_volume({8, 8, 8});
  change(config);
  try {
    Vit model(config);
  } catch (const InputError& e) {
    return e.what();
  }
  return "accepted";
}

/// x (n, C, I, J, P) as (n, C·P, I, J): the last axis becomes channels.
Tensor last_axis_to_channels(const Tensor& x) {
  const Shape& s = x.shape();
  const Tensor y = Tensor::empty(x.allocator(), {s[0], s[1] * s[4], s[2], s[3]}, x.dtype());
  const int64_t plane = s[2] * s[3], P = s[4];
  for (int64_t a = 0; a < s[0] * s[1]; ++a)
    for (int64_t i = 0; i < plane; ++i)
      for (int64_t p = 0; p < P; ++p) y.data<double>()[(a * P + p) * plane + i] = x.data<double>()[(a * plane + i) * P + p];
  return y;
}

// Volumes as thin as one patch are images whose channels are the slices: both models must compute the same, gradients too.
TEST(Volume, OfOnePatchAlongAnAxisIsAnImageOfItsSlices) {
  VitConfig image = tiny_config();
  image.channels = 2 * 4;
  TinyModel thin(tiny_volume({8, 8, 4})), flat(image, DType::f64, 2);
  for (Parameter* p : flat.trained()) {
    const Tensor& same = thin.parameter(p->name).value;
    copy(p->name == "patch_embed.proj.weight" ? last_axis_to_channels(same) : same, p->value);
  }
  flat.model.refresh(flat.bench.ctx);
  flat.images = last_axis_to_channels(thin.images);
  flat.targets = thin.targets;
  EXPECT_NEAR(flat.total_loss(), thin.total_loss(), 1e-13);
  flat.differentiate();
  thin.differentiate();
  const Snapshot from_flat = flat.gradients(), from_volume = thin.gradients();
  for (const auto& [name, grad] : from_flat) {
    const Tensor& same = from_volume.at(name);
    const Tensor other = name == "patch_embed.proj.weight" ? last_axis_to_channels(same) : same;
    EXPECT_LE(largest_difference(grad, other), 1e-12 * std::max(1.0, largest_of(grad))) << name;
  }
}

TEST(Volume, ShapesAreThoseOfAConvolution) {
  TinyModel tiny(tiny_volume({4, 8, 12}));
  EXPECT_EQ(tiny.parameter("patch_embed.proj.weight").shape, Shape({16, 2, 4, 4, 4}));
  EXPECT_EQ(tiny.parameter("pos_embed").shape, Shape({1, 7, 16}));
  EXPECT_EQ(tiny.model.grid(), Shape({1, 2, 3}));
  EXPECT_EQ(input_shape(tiny.model.config(), 5), Shape({5, 2, 4, 8, 12}));
}

TEST(Volume, OfAnotherSizeIsRefusedWithBothSizes) {
  TinyModel tiny(tiny_volume({4, 8, 12}));
  for (const auto& [shape, shown] : {std::pair{Shape{1, 2, 8, 8, 12}, "(1, 2, 8, 8, 12)"}, {Shape{1, 2, 8, 12}, "(1, 2, 8, 12)"}}) {
    ForwardPass pass;
    try {
      tiny.model.forward(tiny.bench.ctx, Variable(random_input(tiny.bench.ctx, {shape}, DType::f64, RngKey{1})), pass);
      ADD_FAILURE() << "nothing was thrown";
    } catch (const Error& e) {
      EXPECT_EQ(e.what(), fmt::format("[vit] images {} but the model wants (B, 2, 4, 8, 12)", shown));
    }
  }
}

TEST(Volume, SidesThatCannotWorkAreRefusedWithTheirKey) {
  const std::vector<std::pair<std::string, std::function<void(VitConfig&)>>> cases = {
      {"accepted", [](VitConfig&) {}},
      {"model.dimensions must be 2", [](VitConfig& c) { c.dimensions = 4, c.volume.clear(); }},
      {"model.volume gives", [](VitConfig& c) { c.dimensions = 2; }},
      {"model.volume wants 3 sides",
       [](VitConfig& c) {
         c.volume = {8, 8};
       }},
      {"model.volume wants 3 sides",
       [](VitConfig& c) {
         c.volume = {8, 8, 8, 8};
       }},
      {"model.volume cannot", [](VitConfig& c) { c.image_size = 8; }},
      {"model.volume: 8x0x8", [](VitConfig& c) { c.volume[1] = 0; }},
      {"model.volume: 8x8x-4", [](VitConfig& c) { c.volume[2] = -4; }},
      {"model.patch: images of 8x10x8", [](VitConfig& c) { c.volume[1] = 10; }},
      {"model.patch: images of 10x10x10", [](VitConfig& c) { c.volume.clear(), c.image_size = 10; }},
      {"model.image_size, model.channels", [](VitConfig& c) { c.volume.clear(); }},
      {"model.positions: sincos in 3 dimensions", [](VitConfig& c) { c.positions = Positions::sincos; }},
  };
  for (const auto& [expected, change] : cases) EXPECT_TRUE(refusal_of(change).starts_with(expected)) << refusal_of(change);
}

TEST(VolumePositions, GiveEachSideAThirdOfTheWidth) {
  TestBench bench;
  const int64_t D = 18, n = 3;
  const Tensor p = random_input(bench.ctx, {{1, 2 + 2 * 3 * 4, D}}, DType::f64, RngKey{1});
  fill_sincos(p, 2, {2, 3, 4});
  for (int64_t i = 0; i < 2 * D; ++i) EXPECT_EQ(p.data<double>()[i], 0);
  for (int64_t token = 0; token < 24; ++token) {
    const double place[] = {static_cast<double>(token / 12), static_cast<double>(token / 4 % 3), static_cast<double>(token % 4)};
    const double* at = p.data<double>() + (2 + token) * D;
    for (int axis = 0; axis < 3; ++axis, at += 2 * n)
      for (int64_t i = 0; i < n; ++i) {
        const double angle = place[axis] / std::pow(10000.0, static_cast<double>(i) / 3);
        EXPECT_NEAR(at[i], std::sin(angle), 1e-14) << token;
        EXPECT_NEAR(at[n + i], std::cos(angle), 1e-14) << token;
      }
  }
}

TEST(VolumePositions, ResizeKeepsInnerRampsOfEverySide) {
  TestBench bench;
  const auto ramp = [&](const Shape& grid) {
    const Tensor p = Tensor::zeros(bench.allocator, {1, 1 + grid.numel(), 1}, DType::f64);
    p.data<double>()[0] = 100;
    for (int64_t t = 0; t < grid.numel(); ++t) {
      const auto inside = [&](int64_t k, int axis) { return (static_cast<double>(k) + 0.5) / static_cast<double>(grid[axis]); };
      p.data<double>()[1 + t] = 3 * inside(t / grid[2] / grid[1], 0) - 2 * inside(t / grid[2] % grid[1], 1) + 5 * inside(t % grid[2], 2);
    }
    return p;
  };
  const Shape to{7, 8, 12};
  const Tensor resized = resize_positions(ramp({8, 6, 9}), 1, {8, 6, 9}, 1, to), exact = ramp(to);
  ASSERT_EQ(resized.shape(), exact.shape());
  EXPECT_EQ(resized.data<double>()[0], 100);
  int64_t checked = 0;
  for (int64_t x = 2; x < 5; ++x)
    for (int64_t y = 3; y < 5; ++y)
      for (int64_t z = 3; z < 9; ++z, ++checked) {
        const int64_t at = 1 + (x * 8 + y) * 12 + z;
        EXPECT_NEAR(resized.data<double>()[at], exact.data<double>()[at], 1e-13) << at;
      }
  EXPECT_GT(checked, 0);
}

TEST(VolumeWeights, StartAModelOfAnotherGrid) {
  ScratchFolder folder;
  const std::string path = folder.file("model.safetensors");
  VitConfig cube = tiny_config();
  cube.dimensions = 3;
  TinyModel from(cube, DType::f32), to(tiny_volume({8, 12, 4}), DType::f32, 2);
  save_weights(from.bench.ctx, path, from.model);
  EXPECT_EQ(init_from_weights(to.bench.ctx, path, to.model).adapted, std::vector<std::string>{"pos_embed: 2x2x2 to 2x3x1"});
  EXPECT_TRUE(same_bits(to.parameter("pos_embed").value, resize_positions(from.parameter("pos_embed").value, 1, {2, 2, 2}, 1, {2, 3, 1})));
  save_weights(to.bench.ctx, path, to.model);
  TinyModel same(tiny_volume({8, 12, 4}), DType::f32, 3);
  load_weights(same.bench.ctx, path, same.model);
  expect_same(to.values(), same.values());
  // Six patches are no cube: the file says which grid they are.
  EXPECT_EQ(init_from_weights(from.bench.ctx, path, from.model).adapted, std::vector<std::string>{"pos_embed: 2x3x1 to 2x2x2"});
  TinyModel turned(tiny_volume({4, 8, 12}), DType::f32, 4);  // as many patches, elsewhere
  EXPECT_EQ(init_from_weights(turned.bench.ctx, path, turned.model).adapted, std::vector<std::string>{"pos_embed: 2x3x1 to 1x2x3"});
  EXPECT_TRUE(init_from_weights(same.bench.ctx, path, same.model).adapted.empty());
  EXPECT_TRUE(same_bits(same.parameter("pos_embed").value, to.parameter("pos_embed").value));
}

/// Writes the weights of a model without what this program says beside them.
void save_bare(Vit& model, const std::string& path, const SafetensorsFile::Metadata& metadata = {}) {
  std::vector<NamedTensor> tensors;
  for (const Parameter* p : parameters_of(model))
    if (p->role != Parameter::Role::derived && p->shape.numel() > 0) tensors.push_back({p->name, p->value});
  for (const Buffer* b : buffers_of(model)) tensors.push_back({b->name, b->value});
  write_safetensors(path, tensors, metadata);
}

TEST(VolumeWeights, OfAnUnknownGridAreACubeOrTheModelsOwn) {
  ScratchFolder folder;
  const std::string path = folder.file("model.safetensors");
  TinyModel six(tiny_volume({8, 12, 4}), DType::f32), also_six(tiny_volume({4, 8, 12}), DType::f32, 2),
      cube(tiny_volume({8, 8, 8}), DType::f32, 3);
  save_bare(six.model, path);
  EXPECT_TRUE(init_from_weights(also_six.bench.ctx, path, also_six.model).adapted.empty());
  for (const char* nonsense : {"2x3", "2x3xx1", "2x3x-1", "9x9x9", ""}) {
    save_bare(six.model, path, {{"patch_grid", nonsense}});
    EXPECT_TRUE(init_from_weights(also_six.bench.ctx, path, also_six.model).adapted.empty());
    EXPECT_THROW(init_from_weights(cube.bench.ctx, path, cube.model), InputError);
  }
  save_bare(cube.model, path);
  EXPECT_EQ(init_from_weights(six.bench.ctx, path, six.model).adapted, std::vector<std::string>{"pos_embed: 2x2x2 to 2x3x1"});
}

TEST(VolumeWeights, OfABoxFitABoxWithoutAClassToken) {
  ScratchFolder folder;
  const std::string path = folder.file("model.safetensors");
  VitConfig pooled = tiny_volume({8, 12, 4});
  pooled.pool = Pool::average;
  TinyModel from(tiny_volume({8, 12, 4}), DType::f32), to(pooled, DType::f32, 2);
  save_weights(from.bench.ctx, path, from.model);
  const LoadReport report = init_from_weights(to.bench.ctx, path, to.model);
  EXPECT_EQ(report.adapted, std::vector<std::string>{"pos_embed: 2x3x1 to 2x3x1"});
  EXPECT_TRUE(
      same_bits(to.parameter("pos_embed").value, from.parameter("pos_embed").value.reshape({7, 16}).slice(1, 7).reshape({1, 6, 16})));
}

TEST(Regression, GradientsOnVolumesMatchDifferences) {
  for (const LossConfig& loss : regressions()) {
    TinyModel tiny(tiny_regression(), DType::f64, 1, loss);
    expect_gradients_match_differences(tiny, 3);
  }
}

TEST(Regression, TrainsOnVolumes) {
  for (const LossConfig& loss : regressions()) {
    TinyModel tiny(tiny_regression(), DType::f32, 1, loss);
    OptimConfig optim;
    optim.lr = 3e-3;
    TinyTraining training(tiny, optim);
    const double before = training.step().loss;
    double after = before;
    for (int i = 0; i < 60; ++i) {
      const StepReport report = training.step(2);
      ASSERT_TRUE(report.accepted) << report.fault;
      after = report.loss;
    }
    EXPECT_LT(after, 0.25 * before);
  }
}

#if defined(ERMOE_WITH_CUDA)
TEST(VolumeOnGpu, LossAndGradientsAreThoseOfTheCpu) {
  if (test_gpu() == nullptr) GTEST_SKIP() << "no GPU";
  VitConfig config = tiny_volume({8, 12, 4});
  config.classes = 1;
  for (const LossConfig& loss : regressions()) {
    GpuBench gpu;
    TinyModel here(config, DType::f32, 1, loss), there(config, DType::f32, 1, loss);
    there.model.move_to(gpu.ctx, DType::f32);
    there.images = on_device_of(gpu.ctx, there.images);
    there.targets = on_device_of(gpu.ctx, there.targets);
    there.bench.ctx = gpu.ctx;
    EXPECT_NEAR(there.total_loss(), here.total_loss(), 1e-5);
    std::vector<double> gradients[2];
    for (TinyModel* tiny : {&here, &there}) {
      tiny->differentiate();
      for (const auto& [name, grad] : tiny->gradients()) std::ranges::copy(to_doubles(grad), std::back_inserter(gradients[tiny == &there]));
    }
    EXPECT_LT(dissimilarity(gradients[0], gradients[1]), 1e-9);
  }
}
#endif

TEST(Regression, WantsOneOutput) {
  TestBench bench;
  for (const LossConfig& loss : regressions()) {
    EXPECT_NO_THROW(TaskLoss(bench.ctx, loss, 1, DType::f32));
    try {
      TaskLoss(bench.ctx, loss, 4, DType::f32);
      ADD_FAILURE() << "nothing was refused";
    } catch (const InputError& e) {
      EXPECT_TRUE(std::string(e.what()).starts_with("model.classes: loss.kind ")) << e.what();
    }
  }
}

}  // namespace
}  // namespace ermoe::testing
