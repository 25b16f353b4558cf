// Checkpoints for torch_compat.py: of small models with one setting or another, trained a few steps so that nothing has its first value,
// and beside each what the engine makes of some images. Not a test by itself.
//   ermoe_torch_cases FOLDER    writes FOLDER/CASE/{model,ema,optimizer}.safetensors, state.json and expected.safetensors
#include "core/safetensors.h"
#include "models/average.h"
#include "models/checkpoint.h"
#include "models/regions.h"
#include "tests/models/tiny_model.h"
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

int run(int argc, char** argv) {
  check_input(argc == 2, "usage: ermoe_torch_cases FOLDER");
  std::vector<Case> cases = image_cases();
  for (const Case& volume : volume_cases()) cases.push_back(volume);
  for (const Case& made : cases) write_case(made, argv[1]);
  std::printf("%zu cases\n", cases.size());
  return 0;
}

}  // namespace
}  // namespace ermoe::testing

int main(int argc, char** argv) {
  return ermoe::guard_main("ermoe_torch_cases", [&] { return ermoe::testing::run(argc, argv); });
}
