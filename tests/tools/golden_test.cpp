// The engine against an independent float64 model: every case of tests/golden (its README says how they are made) in
// double and in single precision, and in single precision on a GPU where there is one. Logits, loss, chosen experts, every gradient, and
// parameters after ten steps.
#include "core/json.h"
#include "core/safetensors.h"
#include "models/config_rules.h"
#include "models/task_loss.h"
#include "models/train_step.h"
#include "models/weights.h"
#include "ops/soft_targets.h"
#include "tests/bench.h"
#include "tests/gpu_bench.h"
#include "tools/config_io.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <filesystem>

namespace ermoe::testing {
namespace {

enum class Where { cpu, gpu };

struct GoldenCase {
  std::string path;
  DType dtype;
  Where where;
};

std::vector<GoldenCase> all_cases() {
  std::vector<std::string> paths;
  for (const auto& entry : std::filesystem::directory_iterator(std::string(ERMOE_SOURCE_DIR) + "/tests/golden"))
    if (entry.path().extension() == ".safetensors") paths.push_back(entry.path().string());
  std::ranges::sort(paths);
  std::vector<GoldenCase> cases;
  for (const std::string& path : paths)
    for (DType dtype : {DType::f64, DType::f32}) cases.push_back({path, dtype, Where::cpu});
#if defined(ERMOE_WITH_CUDA)
  for (const std::string& path : paths) cases.push_back({path, DType::f32, Where::gpu});
#endif
  return cases;
}

class Golden : public ::testing::TestWithParam<GoldenCase> {
 protected:
  Golden() : file_(SafetensorsFile::open(GetParam().path)) {}

  void SetUp() override {
#if defined(ERMOE_WITH_CUDA)
    if (GetParam().where == Where::gpu) {
      if (test_gpu() == nullptr) GTEST_SKIP() << "no GPU";
      gpu_ = std::make_unique<GpuBench>();
      ctx_ = gpu_->ctx;
    }
#endif
    apply_json(config_, parse_json(file_.metadata().at("config"), "golden"), "golden");
    model_ = std::make_unique<Vit>(config_.model);
    model_->allocate(bench_.ctx, GetParam().dtype);
    for (Parameter* p : parameters_of(*model_))
      if (p->role != Parameter::Role::derived) file_.load_into("param." + p->name, p->value);
    model_->refresh(bench_.ctx);
    if (GetParam().where == Where::gpu) model_->move_to(ctx_, GetParam().dtype);
    images_ = on_device_of(ctx_, file_.load("images", bench_.allocator, GetParam().dtype));
    labels_ = on_device_of(ctx_, file_.load("labels", bench_.allocator, DType::i32));
    if (file_.has("allow"))
      allow_ = on_device_of(ctx_, file_.load("allow", bench_.allocator, DType::u8))
                   .reshape({file_.shape("ids." + first_block()).rows(), config_.model.moe.experts});
    tolerance_ = GetParam().dtype == DType::f64 ? 1e-9 : 1e-5;
  }

  std::string first_block() const {
    for (const std::string& name : file_.names())
      if (name.starts_with("ids.")) return name.substr(4);
    return "";
  }

  /// Distance relative to the size of the expected tensor; `floor` stands in where that is rounding noise.
  void expect_close(const std::string& name, const Tensor& got, double floor = 1e-6) {
    ASSERT_EQ(got.shape().numel(), file_.shape(name).numel()) << name;
    const auto expected = to_doubles(file_.load(name, bench_.allocator, DType::f64)), actual = to_doubles(got);
    double worst = 0, largest = floor;
    for (size_t i = 0; i < expected.size(); ++i) {
      worst = std::isnan(actual[i]) ? INFINITY : std::max(worst, std::abs(expected[i] - actual[i]));
      largest = std::max(largest, std::abs(expected[i]));
    }
    EXPECT_LE(worst / largest, tolerance_) << name;
  }

  Variable loss_of(const ExecContext& ctx, const Variable& logits) {
    const Tensor targets = soft_targets(ctx, labels_, config_.model.classes, config_.loss.smoothing, GetParam().dtype);
    return task_loss(ctx, config_.loss, logits, targets);
  }

  void check_forward() {
    ExecContext ctx = ctx_;
    ctx.mode = Mode::eval;
    ForwardPass pass;
    pass.allow = allow_;
    expect_close("logits", model_->forward(ctx, Variable(images_), pass).value);
    for (const RoutingRecord& route : pass.routes) {
      const std::string block = std::to_string(route.block);
      const Tensor ids = file_.load("ids." + block, bench_.allocator, DType::i32);
      EXPECT_EQ(to_vector<int32_t>(ids), to_vector<int32_t>(route.plan.expert_ids)) << "ids." << block;
      expect_close("weights." + block, route.weights);
    }
  }

  /// The largest entry of any gradient: what a gradient of rounding noise is measured against in single precision.
  double gradient_scale() {
    double largest = 0;
    for (const Parameter* p : parameters_of(*model_)) {
      if (p->role == Parameter::Role::derived) continue;
      for (double g : to_doubles(file_.load("grad." + p->name, bench_.allocator, DType::f64))) largest = std::max(largest, std::abs(g));
    }
    return largest;
  }

  TestBench bench_;
#if defined(ERMOE_WITH_CUDA)
  std::unique_ptr<GpuBench> gpu_;
#endif
  ExecContext ctx_ = bench_.ctx;  // where the case runs
  SafetensorsFile file_;
  RunConfig config_;
  std::unique_ptr<Vit> model_;
  Tensor images_, labels_, allow_;
  double tolerance_ = 0;
};

TEST_P(Golden, Agrees) {
  check_forward();
  StiefelMethod method = stiefel_method(config_.model.moe.orthogonality);
  Optimizer optimizer(ctx_, model_->arena(), config_.optim, method);
  TrainStep step(ctx_, *model_, optimizer, nullptr, config_.optim.clip);
  const auto losses = to_doubles(file_.load("losses", bench_.allocator, DType::f64));
  const auto loss = [&](const ExecContext& ctx, const Variable& logits) { return loss_of(ctx, logits); };
  const double floor = GetParam().dtype == DType::f64 ? 1e-6 : 0.1 * gradient_scale();
  for (size_t i = 0; i < losses.size(); ++i) {
    step.begin(ctx_, 1);
    step.micro_batch(ctx_, images_, loss, allow_);
    const StepReport report = step.finish(ctx_, config_.optim.lr);
    ASSERT_TRUE(report.accepted) << report.fault;
    // Ten steps of Adam amplify single-precision rounding; the first loss is the promise, double holds for all.
    if (i == 0 || GetParam().dtype == DType::f64) {
      EXPECT_NEAR(report.loss + report.extra_loss, losses[i], tolerance_ * std::abs(losses[i])) << "loss of step " << i + 1;
    }
    if (i > 0) continue;
    for (const Parameter* p : parameters_of(*model_))
      if (p->role != Parameter::Role::derived) expect_close("grad." + p->name, p->grad, floor);
    for (const Buffer* b : buffers_of(*model_))
      if (file_.has("buffer." + b->name)) expect_close("buffer." + b->name, b->value);
  }
  if (GetParam().dtype != DType::f64) return;
  for (const Parameter* p : parameters_of(*model_))
    if (p->role != Parameter::Role::derived) expect_close("final." + p->name, p->value);
  for (const Buffer* b : buffers_of(*model_))
    if (file_.has("final_buffer." + b->name)) expect_close("final_buffer." + b->name, b->value);
}

class GoldenUpcycling : public Golden {};

/// Experts that the engine makes of the file's dense networks. Singular vectors have no sign of their own: what is compared is what does
/// not depend on it.
TEST_P(GoldenUpcycling, MakesTheSameExperts) {
  const auto find = [&](const std::string& name) {
    return file_.has("dense." + name) ? file_.load("dense." + name, bench_.allocator, GetParam().dtype) : Tensor();
  };
  const VitConfig& config = config_.model;
  for (Parameter* p : parameters_of(*model_))
    if (p->role != Parameter::Role::derived && (p->name.find(".experts.") != std::string::npos || p->name.ends_with(".basis")))
      fill(p->value, 0.5);
  const Upcycled made = upcycle(*model_, config, find, {.source = "golden", .noise = 0, .key = {}});
  EXPECT_EQ(std::ssize(made.blocks), std::ssize(moe_blocks(config.moe.layers, config.depth)));
  model_->refresh(bench_.ctx);
  for (const Parameter* p : parameters_of(*model_))
    if (p->name.ends_with(".s1") || p->name.ends_with(".s2")) expect_close("param." + p->name, p->value);
  check_forward();
  if (factor_rank(config) < std::min(expert_hidden(config), config.width)) return;
  ForwardPass pass;
  expect_close("dense.logits", model_->forward(bench_.ctx, Variable(images_), pass).value);
}

TEST_P(Golden, NamesEveryTensor) {
  for (const std::string& name : file_.names()) {
    if (!name.starts_with("param.")) continue;
    const auto known = [&](const Parameter* p) { return "param." + p->name == name; };
    EXPECT_TRUE(std::ranges::any_of(parameters_of(*model_), known)) << name;
  }
}

std::string case_name(const ::testing::TestParamInfo<GoldenCase>& info) {
  const char* where = info.param.where == Where::gpu ? "_gpu" : "";
  return std::filesystem::path(info.param.path).stem().string() + "_" + name_of(info.param.dtype) + where;
}

INSTANTIATE_TEST_SUITE_P(Cases, Golden, ::testing::ValuesIn(all_cases()), case_name);

/// Those that hold dense networks.
std::vector<GoldenCase> upcycled_cases() {
  std::vector<GoldenCase> cases = all_cases();
  std::erase_if(cases, [](const GoldenCase& c) { return c.where == Where::gpu || !SafetensorsFile::open(c.path).has("dense.logits"); });
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Cases, GoldenUpcycling, ::testing::ValuesIn(upcycled_cases()), case_name);

}  // namespace
}  // namespace ermoe::testing
