// Experts made from a dense network: the model computes what the dense one did, routing bases differ, what cannot be is refused.
#include "models/upcycle.h"

#include "core/safetensors.h"
#include "models/weights.h"
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

/// The tiny model with experts as wide as its dense networks: F 32, D 16.
VitConfig wide_config() {
  VitConfig config = tiny_config();
  config.moe.hidden = 32;
  return config;
}

VitConfig dense_config() {
  VitConfig config = wide_config();
  config.moe.layers = "none";
  return config;
}

Tensor logits_of(TinyModel& tiny, std::vector<RoutingRecord>* routes = nullptr) {
  ExecContext ctx = tiny.bench.ctx;
  ctx.mode = Mode::eval;
  ForwardPass pass;
  Tensor logits = tiny.model.forward(ctx, Variable(tiny.images), pass).value;
  if (routes != nullptr) *routes = pass.routes;
  return logits;
}

/// A dense model's weights on disk, which are single, and a dense model of the same numbers in `dtype`.
class Upcycle : public ::testing::Test {
 protected:
  Upcycle() : Upcycle(dense_config()) {}
  explicit Upcycle(const VitConfig& config) : dense_(config, DType::f64, 1) {
    save_weights(dense_.bench.ctx, path_, dense_.model);
    load_weights(dense_.bench.ctx, path_, dense_.model);
  }

  std::string refusal(const VitConfig& config) {
    TinyModel tiny(config, DType::f32, 2);
    return message_of([&] { init_from_weights(tiny.bench.ctx, path_, tiny.model); });
  }
  /// The file without one tensor, or with another in its place.
  void rewrite(const std::string& name, const Tensor& instead) {
    const SafetensorsFile file = SafetensorsFile::open(path_);
    std::vector<NamedTensor> entries;
    for (const std::string& n : file.names())
      if (n != name) entries.push_back({n, file.load(n, dense_.bench.allocator, DType::f32)});
    if (instead.defined()) entries.push_back({name, instead});
    write_safetensors(path_, entries);
  }

  ScratchFolder folder_;
  std::string path_ = folder_.file("dense.safetensors");
  TinyModel dense_;
};

/// Settings with which the model begins as the dense one.
std::vector<VitConfig> exact_configs() {
  std::vector<VitConfig> configs(11, wide_config());
  configs[1].moe.top_k = 1;
  configs[2].moe.top_k = 4;
  configs[3].moe.basis = Basis::disjoint;
  configs[4].moe.basis = Basis::untied;
  configs[5].moe.combine = Combine::softmax;
  configs[6].moe.free_experts = 2;
  configs[6].moe.threshold = "0.5";
  configs[7].moe.basis = Basis::disjoint;
  configs[7].moe.free_experts = 1;
  configs[7].moe.threshold = "quantile:0.3";
  configs[8].moe.expert = ExpertKind::plain;
  configs[8].moe.basis = Basis::untied;
  configs[9].moe.score = Score::subspace_cosine;
  configs[9].moe.experts = 3;     // which does not divide the rank
  configs[9].moe.basis_rank = 7;  // bases overlap
  configs[10].moe.layers = "0,1";
  configs[10].moe.orthogonality = Orthogonality::none;
  return configs;
}

TEST_F(Upcycle, BeginsAsTheDenseModel) {
  const Tensor wanted = logits_of(dense_);
  ASSERT_GT(largest_of(wanted), 0.1);
  for (size_t i = 0; const VitConfig& config : exact_configs()) {
    SCOPED_TRACE(i++);
    TinyModel exact(config, DType::f64, 2), single(config, DType::f32, 2);
    const LoadReport report = init_from_weights(exact.bench.ctx, path_, exact.model);
    EXPECT_LT(largest_difference(logits_of(exact), wanted), 1e-12);
    init_from_weights(single.bench.ctx, path_, single.model);
    EXPECT_LT(largest_difference(logits_of(single), wanted), 1e-5);
    EXPECT_EQ(report.summary(), "");
    EXPECT_NE(report.upcycled.find("experts each made from the dense network ("), std::string::npos) << report.upcycled;
  }
}

TEST_F(Upcycle, SaysWhatItMade) {
  VitConfig both = wide_config();
  both.moe.layers = "0,1";
  TinyModel tiny(both, DType::f32, 2), one(wide_config(), DType::f32, 2);
  EXPECT_EQ(init_from_weights(tiny.bench.ctx, path_, tiny.model).upcycled, "blocks 0, 1: 4 experts each made from the dense network (SVD)");
  EXPECT_EQ(init_from_weights(one.bench.ctx, path_, one.model).upcycled, "block 1: 4 experts each made from the dense network (SVD)");
}

TEST_F(Upcycle, SaysWhereItDoesNotBeginAsTheDenseModel) {
  const Tensor wanted = logits_of(dense_);
  VitConfig raw = wide_config(), share = wide_config(), linear = wide_config();
  raw.moe.combine = Combine::raw;
  share.moe.combine = Combine::share;
  linear.moe.router = RouterKind::linear;
  linear.moe.expert = ExpertKind::plain;
  for (const auto& [config, name] :
       {std::pair(raw, "moe.combine raw"), std::pair(share, "moe.combine share"), std::pair(linear, "moe.router linear")}) {
    TinyModel tiny(config, DType::f64, 2);
    const LoadReport report = init_from_weights(tiny.bench.ctx, path_, tiny.model);
    EXPECT_GT(largest_difference(logits_of(tiny), wanted), 1e-3);
    const std::string said = fmt::format("; the weights of {} do not add up to 1, so that the model does not begin as the dense one", name);
    EXPECT_NE(report.upcycled.find(said), std::string::npos) << report.upcycled;
  }
}

TEST_F(Upcycle, FactorsAreOrthonormalAndBasesDisjoint) {
  for (const Basis basis : {Basis::leading, Basis::disjoint, Basis::untied}) {
    VitConfig config = wide_config();
    config.moe.basis = basis;  // 4 experts of 4 columns each: all 16 triplets
    TinyModel tiny(config, DType::f64, 2);
    init_from_weights(tiny.bench.ctx, path_, tiny.model);
    for (const Parameter* p : tiny.trained()) {
      if (!p->orthonormal || !p->name.starts_with("blocks.1.moe")) continue;
      EXPECT_LT(orthogonality_residual(tiny.bench.ctx, p->value), 1e-13) << p->name;
    }
    const auto bases = to_doubles(tiny.parameter("blocks.1.moe.router.packed_basis").value);  // (E, R, D)
    for (int64_t a = 0; a < 16; ++a)
      for (int64_t b = 0; b < 16; ++b) {
        double product = 0;
        for (int64_t d = 0; d < 16; ++d) product += bases[static_cast<size_t>(a * 16 + d)] * bases[static_cast<size_t>(b * 16 + d)];
        EXPECT_NEAR(product, a == b, 1e-13) << a << " " << b;
      }
  }
}

TEST_F(Upcycle, ScalesAreDealtOutToExperts) {
  TinyModel tiny(wide_config(), DType::f64, 2);
  init_from_weights(tiny.bench.ctx, path_, tiny.model);
  const auto s = to_doubles(tiny.parameter("blocks.1.moe.experts.s1").value);  // (E, r)
  const auto sorted = std::vector<double>(s.begin(), s.begin() + 16);
  const auto scale = [&](size_t expert, size_t place) { return s[expert * 16 + place]; };
  std::vector<double> descending = sorted;
  std::ranges::sort(descending, std::ranges::greater{});
  for (size_t e = 0; e < 4; ++e)
    for (size_t i = 0; i < 4; ++i) EXPECT_DOUBLE_EQ(scale(e, i), descending[e + 4 * i]);
  EXPECT_DOUBLE_EQ(scale(1, 4), descending[2]);  // behind its own come the next expert's
}

TEST_F(Upcycle, TokensGoToDifferentExperts) {
  TinyModel tiny(wide_config(), DType::f64, 2);
  init_from_weights(tiny.bench.ctx, path_, tiny.model);
  std::vector<RoutingRecord> routes;
  logits_of(tiny, &routes);
  std::vector<int64_t> counts(4, 0);
  for (const int32_t id : routes.at(0).plan.expert_ids.span<int32_t>()) counts[static_cast<size_t>(id)] += 1;
  for (const int64_t count : counts) EXPECT_GT(count, 0);
}

TEST_F(Upcycle, ExpertsThatBeginAlikeGrowApart) {
  TinyModel tiny(wide_config(), DType::f64, 2);
  init_from_weights(tiny.bench.ctx, path_, tiny.model);
  const auto spread = [&] {  // of an expert's W2 from that of the first
    const Tensor& w = tiny.parameter("blocks.1.moe.experts.W2").value;
    return largest_difference(w.slice(0, 1), w.slice(1, 2));
  };
  EXPECT_LT(spread(), 1e-13);
  Optimizer optimizer(tiny.bench.ctx, tiny.model.arena(), {}, StiefelMethod::newton_schulz);
  TrainStep step(tiny.bench.ctx, tiny.model, optimizer, nullptr, 1);
  for (int i = 0; i < 2; ++i) {
    step.begin(tiny.bench.ctx, 1);
    step.micro_batch(tiny.bench.ctx, tiny.images,
                     [&](const ExecContext& c, const Variable& y) { return tiny.loss_of(c, y, tiny.targets); });
    ASSERT_TRUE(step.finish(tiny.bench.ctx, 1e-3).accepted);
  }
  tiny.model.refresh_if_stale(tiny.bench.ctx);
  EXPECT_GT(spread(), 1e-4);
}

TEST_F(Upcycle, NoiseMakesExpertsDiffer) {
  for (const ExpertKind kind : {ExpertKind::eigen, ExpertKind::plain}) {
    VitConfig config = wide_config();
    config.moe.expert = kind;
    config.moe.basis = Basis::untied;
    TinyModel tiny(config, DType::f64, 2);
    const LoadReport report = init_from_weights(tiny.bench.ctx, path_, tiny.model, {.noise = 0.01, .key = RngKey{5}});
    EXPECT_NE(report.upcycled.find(fmt::format("relative noise of 0.01 on their {}", kind == ExpertKind::eigen ? "scales" : "weights")),
              std::string::npos);
    const Tensor& w = tiny.parameter("blocks.1.moe.experts.W1").value;
    const double apart = largest_difference(w.slice(0, 1), w.slice(3, 4)), size = largest_of(w);
    EXPECT_GT(apart, 1e-3 * size);
    EXPECT_LT(apart, 0.1 * size);
  }
}

TEST_F(Upcycle, ALowerRankSaysWhatIsLost) {
  VitConfig config = wide_config();
  config.moe.rank = 8;
  config.moe.basis_rank = 2;
  TinyModel tiny(config, DType::f64, 2);
  const LoadReport report = init_from_weights(tiny.bench.ctx, path_, tiny.model);
  const auto of = [&](const char* name) { return dense_.parameter(fmt::format("blocks.1.mlp.{}.weight", name)).value; };
  double worst = 0;
  for (const char* name : {"fc1", "fc2"}) {
    const Tensor dense = of(name);
    const auto want = to_doubles(dense);
    const auto got = to_doubles(tiny.parameter(fmt::format("blocks.1.moe.experts.W{}", name[2])).value.slice(0, 1));
    double lost = 0, all = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      lost += (want[i] - got[i]) * (want[i] - got[i]);
      all += want[i] * want[i];
    }
    worst = std::max(worst, std::sqrt(lost / all));
  }
  const std::string start = fmt::format(
      "block 1: 4 experts each made from the dense network (SVD, cut to rank 8 of 16: a relative error of up to {:.2g} (", worst);
  EXPECT_TRUE(report.upcycled.starts_with(start)) << report.upcycled;
}

TEST_F(Upcycle, IsLeftOutWhereAskedFor) {
  TinyModel tiny(tiny_config(), DType::f32, 2);  // experts of another width
  const LoadReport report = init_from_weights(tiny.bench.ctx, path_, tiny.model, {.experts = InitOptions::Experts::left_new});
  EXPECT_EQ(report.upcycled, "");
  EXPECT_EQ(report.missing.size(), 14u);
}

TEST_F(Upcycle, LeavesExpertsThatTheFileHas) {
  VitConfig both = wide_config();
  both.moe.layers = "0,1";
  TinyModel one(wide_config(), DType::f32, 3), two(both, DType::f32, 4);
  save_weights(one.bench.ctx, path_, one.model);
  const LoadReport report = init_from_weights(two.bench.ctx, path_, two.model);
  EXPECT_EQ(report.upcycled, "block 0: 4 experts each made from the dense network (SVD)");
  EXPECT_EQ(report.summary(), "");
  EXPECT_TRUE(same_bits(two.parameter("blocks.1.moe.experts.U1").value, one.parameter("blocks.1.moe.experts.U1").value));
}

TEST_F(Upcycle, DoesNotTouchExpertsBesideTheDenseNetwork) {
  VitConfig config = tiny_config();
  config.moe.hidden = 0;
  config.moe.adapter = 8;
  TinyModel tiny(config, DType::f32, 2);
  const LoadReport report = init_from_weights(tiny.bench.ctx, path_, tiny.model);
  EXPECT_EQ(report.upcycled, "");
  EXPECT_TRUE(report.unexpected.empty());
  EXPECT_FALSE(report.missing.empty());
}

TEST_F(Upcycle, RefusesWhatCannotBe) {
  EXPECT_EQ(refusal(tiny_config()),
            path_ + ": blocks.1.mlp.fc1.weight is (32, 16), and experts made from it are as wide: moe.hidden must be 32, not 24");
  VitConfig config = wide_config();
  config.moe.rank = 12;
  config.moe.basis = Basis::disjoint;
  EXPECT_EQ(refusal(config),
            "moe.basis_rank: disjoint bases of 4 experts times 4 columns are more than the 12 singular triplets that are kept of a dense "
            "network; choose 3 at most");
  config = wide_config();
  config.moe.experts = 20;
  EXPECT_EQ(refusal(config),
            "moe.experts: 20 experts are more than the 16 singular triplets that are kept of a dense network, so that some would have the "
            "same routing basis");
  config = wide_config();
  config.moe.basis = Basis::untied;
  config.moe.rank = 5;
  config.moe.basis_rank = 6;
  EXPECT_EQ(refusal(config), "moe.basis_rank: 6 columns are more than the 5 singular triplets that are kept of a dense network");
}

TEST_F(Upcycle, RefusesBrokenNetworks) {
  const Tensor short_bias = Tensor::zeros(dense_.bench.allocator, {31}, DType::f32);
  rewrite("blocks.1.mlp.fc1.bias", short_bias);
  EXPECT_EQ(refusal(wide_config()), path_ + ": blocks.1.mlp.fc1.bias is (31), not (32)");
  rewrite("blocks.1.mlp.fc1.bias", {});
  EXPECT_EQ(refusal(wide_config()), path_ + ": blocks.1.mlp.fc1.bias is missing");
  rewrite("blocks.1.mlp.fc1.bias", Tensor::zeros(dense_.bench.allocator, {32}, DType::f32));
  const Tensor broken = Tensor::zeros(dense_.bench.allocator, {16, 32}, DType::f32);
  broken.data<float>()[7] = NAN;
  rewrite("blocks.1.mlp.fc2.weight", broken);
  EXPECT_EQ(refusal(wide_config()), path_ + ": blocks.1.mlp.fc2.weight has no singular value decomposition; are all its numbers finite?");
  rewrite("blocks.1.mlp.fc1.weight", Tensor::zeros(dense_.bench.allocator, {32, 12}, DType::f32));
  EXPECT_EQ(refusal(wide_config()), path_ + ": blocks.1.mlp.fc1.weight is (32, 12) but model.width is 16");
}

}  // namespace
}  // namespace ermoe::testing
