// Checkpoints for torch_compat.py: of small models with one setting or another, trained a few steps so that nothing has its first value,
// and beside each what the engine makes of some images. Not a test by itself.
//   ermoe_torch_cases FOLDER    writes FOLDER/CASE/{model,ema,optimizer}.safetensors, state.json and expected.safetensors
//   ermoe_torch_cases CASE clip.safetensors ACTIVATION    writes CASE/again.safetensors: what a dual encoder that begins with those CLIP
//                                                         weights makes of the case's images and captions
#include "core/safetensors.h"
#include "models/average.h"
#include "models/checkpoint.h"
#include "models/clip_weights.h"
#include "models/regions.h"
#include "tests/models/dual_fixture.h"
#include "tools/config_io.h"
#include "tools/main_guard.h"

#include <cstdio>
#include <filesystem>

namespace ermoe::testing {
namespace {

struct Case {
  Case(std::string name_, const VitConfig& model_) : name(std::move(name_)), model(model_) {}

  std::string name;
  VitConfig model;
  double ema = 0;  // of averaged weights; 0: there are none
  int steps = 4;   // of training
};

/// Every setting that changes what a model computes at evaluation stands in one case at least.
std::vector<Case> image_cases() {
  std::vector<Case> cases;
  const auto add = [&](const std::string& name, const std::function<void(VitConfig&)>& change) -> Case& {
    change(cases.emplace_back(name, tiny_config()).model);
    return cases.back();
  };
  const auto add_moe = [&](const std::string& name, const std::function<void(MoeConfig&)>& change) -> Case& {
    return add(name, [&](VitConfig& c) { change(c.moe); });
  };
  add("defaults", [](VitConfig&) {});
  add("averaged", [](VitConfig& c) { c.depth = 3, c.moe.layers = "0,2"; }).ema = 0.5;
  add("dense", [](VitConfig& c) { c.moe.layers = "none", c.qk_norm = true, c.layer_scale = 0.1; }).ema = 0.5;
  add("sincos, average", [](VitConfig& c) { c.positions = Positions::sincos, c.pool = Pool::average, c.moe.layers = "last:1"; });
  add("flatten", [](VitConfig& c) { c.pool = Pool::flatten, c.center_input = true, c.patch_margin = 1; });
  add_moe("no center", [](MoeConfig& m) { m.center = false, m.standardize = false; });
  add_moe("subspace", [](MoeConfig& m) { m.score = Score::subspace_cosine, m.combine = Combine::raw, m.top_k = 3; });
  add_moe("disjoint", [](MoeConfig& m) { m.basis = Basis::disjoint, m.combine = Combine::softmax; }).ema = 0.5;
  add_moe("disjoint, free", [](MoeConfig& m) { m.basis = Basis::disjoint, m.basis_rank = 3, m.free_experts = 2, m.threshold = "0.4"; });
  add_moe("disjoint, rank 4", [](MoeConfig& m) { m.basis = Basis::disjoint, m.rank = 4; });
  add_moe("share, the default", [](MoeConfig& m) {
    m.basis = Basis::disjoint, m.score = Score::subspace_cosine, m.combine = Combine::share;
  }).ema = 0.5;
  add_moe("share, free", [](MoeConfig& m) { m.combine = Combine::share, m.free_experts = 2, m.threshold = "0.2"; });
  add_moe("untied", [](MoeConfig& m) { m.basis = Basis::untied, m.context = Context::attention_mean, m.rank = 7; }).ema = 0.5;
  add_moe("untied, plain", [](MoeConfig& m) { m.basis = Basis::untied, m.expert = ExpertKind::plain; });
  add_moe("quantile", [](MoeConfig& m) { m.threshold = "quantile:0.4", m.free_experts = 1, m.top_k = 3; });
  add_moe("untrained", [](MoeConfig& m) { m.threshold = "quantile:0.4", m.free_experts = 1, m.combine = Combine::softmax; }).steps = 0;
  add_moe("threshold", [](MoeConfig& m) { m.threshold = "0.2"; });
  add_moe("more slots than experts", [](MoeConfig& m) { m.threshold = "0.3", m.free_experts = 2, m.top_k = 5; });
  add_moe("not orthonormal", [](MoeConfig& m) { m.orthogonality = Orthogonality::none; }).ema = 0.5;
  add_moe("gram schmidt", [](MoeConfig& m) { m.orthogonality = Orthogonality::gram_schmidt, m.basis = Basis::disjoint; });
  add_moe("cp", [](MoeConfig& m) { m.layer = ExpertLayer::cp; });
  add_moe("adapter", [](MoeConfig& m) { m.hidden = 0, m.adapter = 8, m.adapter_scale = 0.5; });
  add_moe("emoe adapter", [](MoeConfig& m) { m.router = RouterKind::emoe, m.hidden = 0, m.adapter = 8, m.emoe_temperature = 0.5; });
  add_moe("softmax gate", [](MoeConfig& m) { m.router = RouterKind::bias_balanced, m.gate = Gate::softmax, m.bias_rate = 0.1; });
  add_moe("capacity", [](MoeConfig& m) { m.router = RouterKind::vmoe, m.capacity_eval = 0.8; });
  add_moe("prioritized", [](MoeConfig& m) { m.router = RouterKind::vmoe, m.capacity_eval = 0.7, m.prioritized = true; });
  add_moe("two slots", [](MoeConfig& m) { m.router = RouterKind::soft, m.soft_slots = 2; });
  add_moe("groups", [](MoeConfig& m) { m.router = RouterKind::expert_choice, m.choice_images = 3; });
  add_moe("replicas", [](MoeConfig& m) { m.router = RouterKind::linear, m.expert = ExpertKind::plain, m.replicas = 3; });
  for (const RouterKind router : all_routers()) {
    if (router == RouterKind::ermoe) continue;
    add_moe(std::string(enum_name(router)), [&](MoeConfig& m) { m.router = router; });
    add_moe(std::string(enum_name(router)) + ", plain", [&](MoeConfig& m) { m.router = router, m.expert = ExpertKind::plain; }).ema = 0.5;
  }
  return cases;
}

std::vector<Case> volume_cases() {
  VitConfig volume = tiny_config();
  volume.dimensions = 3;
  volume.channels = 1;
  volume.image_size = 0;
  volume.volume = {8, 4, 12};
  volume.classes = 1;
  volume.width = 24;
  volume.moe.hidden = 32;
  std::vector<Case> cases(3, {"volume", volume});
  cases[1].name = "volume, overlapping";
  cases[1].model.positions = Positions::sincos;
  cases[1].model.patch_margin = 1;
  cases[1].model.center_input = true;
  cases[1].model.pool = Pool::average;
  cases[2].name = "volume, regions";
  cases[2].model.moe.regions = "0:1,2;1:3;2:4;3:2,5";
  cases[2].model.moe.region_share = 0.15;
  cases[2].model.moe.free_experts = 1;
  cases[2].model.moe.threshold = "0.1";
  return cases;
}

/// Region maps for four volumes, one label a voxel.
Tensor made_labels(TinyModel& tiny) {
  std::vector<int64_t> sides{tiny.batch};
  for (const int64_t side : image_sides(tiny.model.config())) sides.push_back(side);
  const Tensor labels = Tensor::zeros(tiny.bench.allocator, Shape(sides), DType::i32);
  for (int64_t i = 0; i < labels.numel(); ++i)
    labels.data<int32_t>()[i] = static_cast<int32_t>(uniform_int(RngKey{8}, static_cast<uint64_t>(i), 7));
  return labels;
}

/// Values that training alone would not give.
void prepare(TinyModel& tiny) {
  const VitConfig& config = tiny.model.config();
  if (config.center_input)
    tiny.model.center_inputs(random_input(tiny.bench.ctx, {{tiny.images.numel() / tiny.batch}}, DType::f32, RngKey{6}), 0);
  for (Buffer* b : buffers_of(tiny.model))
    if (b->name.ends_with("replica_of"))
      for (int64_t i = 0; i < b->value.numel(); ++i)
        b->value.data<float>()[i] = i == 1 ? 3 : 1;  // expert 1 has two, of which the first takes
}

void train(TinyModel& tiny, int steps, Optimizer& optimizer, MovingAverage* average) {
  TrainStep step(tiny.bench.ctx, tiny.model, optimizer, average, 1);
  for (int i = 0; i < steps; ++i) {
    step.begin(tiny.bench.ctx, 1);
    const auto loss = [&](const ExecContext& c, const Variable& y) { return tiny.loss_of(c, y, tiny.targets); };
    step.micro_batch(tiny.bench.ctx, tiny.images, loss, tiny.allow);
    check(step.finish(tiny.bench.ctx, 3e-3).accepted, "[torch_cases] a step was refused");
  }
}

/// What the model as it is makes of the images, under names with `prefix`.
void evaluate(TinyModel& tiny, const std::string& prefix, std::vector<NamedTensor>& out) {
  ExecContext ctx = tiny.bench.ctx;
  ctx.mode = Mode::eval;
  ForwardPass pass;
  pass.allow = tiny.allow;
  out.push_back({prefix + "logits", tiny.model.forward(ctx, Variable(tiny.images), pass).value});
  for (const RoutingRecord& route : pass.routes) {
    const auto name = [&](const char* what) { return fmt::format("{}{}.{}", prefix, what, route.block); };
    out.push_back({name("ids"), route.plan.expert_ids});
    out.push_back({name("weights"), route.weights});
    out.push_back({name("scores"), route.scores});
  }
}

void write_case(const Case& made, const std::string& root) {
  const std::string folder = root + "/" + made.name;
  std::filesystem::create_directories(folder);
  LossConfig loss;
  if (made.model.classes == 1) loss.kind = LossKind::l2;
  TinyModel tiny(made.model, DType::f32, 1, loss);
  std::vector<NamedTensor> expected{{"images", tiny.images}};
  if (has_regions(made.model)) {
    expected.push_back({"labels", made_labels(tiny)});
    tiny.allow = RegionMask(tiny.bench.ctx, made.model)(tiny.bench.ctx, expected.back().tensor);
    expected.push_back({"allow", tiny.allow});
  }
  prepare(tiny);
  const ExecContext& ctx = tiny.bench.ctx;
  Optimizer optimizer(ctx, tiny.model.arena(), {}, stiefel_method(made.model.moe.orthogonality));
  std::optional<MovingAverage> average;
  if (made.ema > 0) average.emplace(ctx, tiny.model.arena(), made.ema);
  train(tiny, made.steps, optimizer, average ? &*average : nullptr);
  tiny.model.refresh_if_stale(ctx);
  evaluate(tiny, "", expected);
  if (average) {
    const AveragedWeights averaged(ctx, tiny.model, *average, [&](const auto& fn) { fn({.images = tiny.images, .allow = tiny.allow}); });
    average->keep_statistics(averaged.statistics());
    evaluate(tiny, "averaged.", expected);
  }
  RunConfig config;
  config.model = made.model;
  config.loss = loss;
  config.optim.ema = made.ema;
  config.data.mean = config.data.std = std::vector<double>(static_cast<size_t>(made.model.channels), 0.5);
  TrainingProgress progress;
  progress.step = made.steps;
  progress.config = config_to_json(config);
  write_checkpoint(ctx, folder, tiny.model, optimizer, average ? &*average : nullptr, progress);
  write_safetensors(folder + "/expected.safetensors", expected);
}

struct DualCase {
  std::string name;
  DualConfig model;
  double ema = 0;
};

/// Of what two towers have beside what image_cases shows of one.
std::vector<DualCase> dual_cases() {
  std::vector<DualCase> cases;
  const auto add = [&](const std::string& name, const std::string& image, const std::string& text) -> DualCase& {
    cases.push_back({"two towers, " + name, small_dual(image, text)});
    return cases.back();
  };
  add("dense", "none", "none").ema = 0.5;
  VitConfig& clip = add("CLIP's form", "none", "none").model.image;
  clip.pre_norm = true, clip.activation = Activation::quick_gelu, clip.norm_eps = 1e-5, clip.patch_bias = PatchBias::off;
  VitConfig& folded = add("folded", "none", "none").model.image;
  folded.pre_norm = folded.center_input = true, folded.positions = Positions::sincos, folded.norm_eps = 1e-5;
  add("sigmoid", "none", "none").model.retrieval.loss = PairLoss::sigmoid;
  add("no class token", "1", "none").model.image.pool = Pool::average;
  add("experts in images", "1", "none").ema = 0.5;
  add("experts in both", "1", "0,1").ema = 0.5;
  DualCase& usual = add("share", "0,1", "1");
  MoeConfig& share = usual.model.image.moe;
  share.hidden = share.rank = share.basis_rank = 0;
  share.basis = Basis::disjoint, share.score = Score::subspace_cosine, share.combine = Combine::share;
  usual.ema = 0.5;
  add("quantile", "1", "1").model.image.moe.threshold = "quantile:0.4";
  for (const RouterKind router : all_routers()) {
    if (router == RouterKind::ermoe) continue;
    const bool mixes = router == RouterKind::soft;  // the padding too
    MoeConfig& moe = add(std::string(enum_name(router)), "1", mixes ? "none" : "0").model.image.moe;
    moe.router = router;
    moe.capacity_eval = router == RouterKind::vmoe ? 0.8 : 0;
  }
  return cases;
}

/// A dual encoder with images and captions, off its starting point.
struct TinyDual {
  explicit TinyDual(const DualConfig& config) : model(config, pair_loss) {
    model.allocate(bench.ctx, DType::f32);
    model.init(bench.ctx, RngKey{1});
    const auto noise = [&](const Shape& shape, const std::string& name) {
      return random_input(bench.ctx, {shape}, DType::f32, key_of(RngKey{2}, name));
    };
    for (Parameter* p : parameters_of(model)) {
      if (p->role == Parameter::Role::derived || p->orthonormal) continue;
      const Tensor by = noise(p->shape, p->name);
      for (int64_t i = 0; i < p->shape.numel(); ++i) p->value.data<float>()[i] += 0.1F * by.data<float>()[i];
    }
    if (config.image.center_input) model.image().center_inputs(noise({3 * 8 * 8}, "input_shift"), 0);
    model.refresh(bench.ctx);
    images = random_input(bench.ctx, {{4, 3, 8, 8}}, DType::f32, RngKey{3});
    tokens = Tensor::from<int32_t>(bench.allocator, {4, 7}, four_captions());
  }

  TestBench bench;
  DualEncoder model;
  Tensor images, tokens;
};

void train(TinyDual& tiny, Optimizer& optimizer, MovingAverage* average) {
  TrainStep step(tiny.bench.ctx, tiny.model, optimizer, average, 1);
  for (int i = 0; i < 4; ++i) {
    step.begin(tiny.bench.ctx, 1);
    step.micro_batch(tiny.bench.ctx, {.images = tiny.images, .targets = {}, .tokens = tiny.tokens}, {});
    check(step.finish(tiny.bench.ctx, 3e-3).accepted, "[torch_cases] a step was refused");
  }
}

/// Features of the images, of the captions and of `more` captions: shorter than the context, one of them without an end.
void evaluate(TinyDual& tiny, const Tensor& more, const std::string& prefix, std::vector<NamedTensor>& out) {
  ExecContext ctx = tiny.bench.ctx;
  ctx.mode = Mode::eval;
  ForwardPass pass, of_more;
  const Pairs pairs = tiny.model.pairs(ctx, tiny.images, tiny.tokens, pass);
  out.push_back({prefix + "image_features", pairs.image.value});
  out.push_back({prefix + "text_features", pairs.text.value});
  out.push_back({prefix + "more_features", tiny.model.text_features(ctx, more, of_more).value});
  out.push_back({prefix + "logits", pair_logits(ctx, pairs, exp_of(ctx, pairs.log_scale)).value});
  if (pairs.bias.defined()) out.push_back({prefix + "bias", pairs.bias.value});
  for (const RoutingRecord& route : pass.routes) {
    const auto name = [&](const char* what) { return fmt::format("{}{}.{}", prefix, what, tiny.model.name_of_block(route.block)); };
    out.push_back({name("ids"), route.plan.expert_ids});
    out.push_back({name("weights"), route.weights});
    out.push_back({name("scores"), route.scores});
  }
}

void write_case(const DualCase& made, const std::string& root) {
  const std::string folder = root + "/" + made.name;
  std::filesystem::create_directories(folder);
  TinyDual tiny(made.model);
  const ExecContext& ctx = tiny.bench.ctx;
  const Tensor more =
      Tensor::from<int32_t>(tiny.bench.allocator, {3, 5}, std::vector<int32_t>{27, 4, 28, 9, 9, 27, 1, 2, 3, 4, 28, 0, 0, 0, 0});
  std::vector<NamedTensor> expected{{"images", tiny.images}, {"tokens", tiny.tokens}, {"more", more}};
  Optimizer optimizer(ctx, tiny.model.arena(), {}, stiefel_method(made.model.image.moe.orthogonality));
  std::optional<MovingAverage> average;
  if (made.ema > 0) average.emplace(ctx, tiny.model.arena(), made.ema);
  train(tiny, optimizer, average ? &*average : nullptr);
  tiny.model.refresh_if_stale(ctx);
  evaluate(tiny, more, "", expected);
  if (average) {
    const AveragedWeights averaged(ctx, tiny.model, *average, [&](const auto& fn) { fn({.images = tiny.images, .tokens = tiny.tokens}); });
    average->keep_statistics(averaged.statistics());
    evaluate(tiny, more, "averaged.", expected);
  }
  TrainingProgress progress;
  RunConfig config;
  config.model = made.model.image;
  config.text = made.model.text;
  config.retrieval = made.model.retrieval;
  config.optim.ema = made.ema;
  config.data.mean = config.data.std = {0.5, 0.5, 0.5};
  progress.config = config_to_json(config);
  write_checkpoint(ctx, folder, tiny.model, optimizer, average ? &*average : nullptr, progress);
  write_safetensors(folder + "/expected.safetensors", expected);
}

/// Loads weights that were exported from a case.
void load_again(const std::string& folder, const std::string& weights, const std::string& activation) {
  DualConfig wanted = small_dual();
  wanted.image.activation = parse_enum<Activation>(activation).value();
  const SafetensorsFile expected = SafetensorsFile::open(folder + "/expected.safetensors");
  TestBench bench;
  ExecContext ctx = bench.ctx;
  ctx.mode = Mode::eval;
  DualEncoder model(clip_config(weights, wanted));
  model.allocate(ctx, DType::f32);
  model.init(ctx, RngKey{7});
  init_from_weights(ctx, weights, model);
  ForwardPass pass;
  const Pairs pairs =
      model.pairs(ctx, expected.load("images", bench.allocator, DType::f32), expected.load("tokens", bench.allocator, DType::i32), pass);
  write_safetensors(folder + "/again.safetensors",
                    {{"image_features", pairs.image.value}, {"text_features", pairs.text.value}, {"logit_scale", model.log_scale().value}});
}

int run(int argc, char** argv) {
  if (argc == 4) {
    load_again(argv[1], argv[2], argv[3]);
    return 0;
  }
  check_input(argc == 2, "usage: ermoe_torch_cases FOLDER");
  std::vector<Case> cases = image_cases();
  for (const Case& volume : volume_cases()) cases.push_back(volume);
  for (const Case& made : cases) write_case(made, argv[1]);
  for (const DualCase& made : dual_cases()) write_case(made, argv[1]);
  std::printf("%zu cases\n", cases.size() + dual_cases().size());
  return 0;
}

}  // namespace
}  // namespace ermoe::testing

int main(int argc, char** argv) {
  return ermoe::guard_main("ermoe_torch_cases", [&] { return ermoe::testing::run(argc, argv); });
}
