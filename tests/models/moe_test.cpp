// The mixture-of-experts layer at its edges: one expert, all tokens to one, an idle expert, every expert, missing slots, free
// experts, capacity; and that it trains in every mode.
#include "models/moe.h"

#include "models/average.h"
#include "models/router_ermoe.h"
#include "ops/orthogonal_step.h"
#include "tests/models/tiny_training.h"

#include <numeric>

namespace ermoe::testing {
namespace {

/// A mask that opens the experts `open` to every token of the batch.
Tensor allow_only(TinyModel& tiny, std::initializer_list<int64_t> open) {
  const int64_t N = tiny.batch * tiny.model.tokens(), E = tiny.model.config().moe.experts;
  const Tensor allow = Tensor::zeros(tiny.bench.allocator, {N, E}, DType::u8);
  for (int64_t n = 0; n < N; ++n)
    for (int64_t e : open) allow.data<uint8_t>()[n * E + e] = 1;
  return allow;
}

std::vector<int64_t> loads(const TinyModel& tiny) {
  const auto counts = tiny.routes.at(0).plan.counts.span<int32_t>();
  return {counts.begin(), counts.end()};
}

Parameter& of_layer(TinyModel& tiny, const std::string& name) { return tiny.parameter("blocks.1.moe." + name); }

class OneExpert : public ::testing::TestWithParam<std::tuple<ExpertKind, RouterKind, DType>> {
 protected:
  /// A model of one expert and the same with a dense network, the same numbers in both: loss and gradients.
  static void expect_dense(VitConfig config, DType dtype) {
    config.moe.experts = config.moe.top_k = 1;
    config.mlp_ratio = static_cast<double>(config.moe.hidden) / static_cast<double>(config.width);
    VitConfig dense_config = config;
    dense_config.moe.layers = "none";
    TinyModel sparse(config, dtype), dense(dense_config, dtype);
    for (Parameter* p : dense.trained())
      if (!p->name.starts_with("blocks.1.mlp.")) copy(sparse.parameter(p->name).value, p->value);
    const std::pair<const char*, const char*> same[] = {
        {"experts.W1", "fc1.weight"}, {"experts.b1", "fc1.bias"}, {"experts.W2", "fc2.weight"}, {"experts.b2", "fc2.bias"}};
    const auto in_dense = [&](const char* name) -> Parameter& { return dense.parameter(std::string("blocks.1.mlp.") + name); };
    for (const auto& [expert, mlp] : same) copy(of_layer(sparse, expert).value.reshape(in_dense(mlp).shape), in_dense(mlp).value);

    EXPECT_EQ(sparse.total_loss(), dense.total_loss());
    sparse.differentiate();
    dense.differentiate();
    for (const auto& [expert, mlp] : same)
      EXPECT_TRUE(same_bits(of_layer(sparse, expert).grad.reshape(in_dense(mlp).shape), in_dense(mlp).grad)) << expert;
    for (const Parameter* p : dense.trained())
      if (!p->name.starts_with("blocks.1.mlp.")) {
        EXPECT_TRUE(same_bits(sparse.parameter(p->name).grad, p->grad)) << p->name;
      }
  }
};

TEST_P(OneExpert, IsTheDenseNetworkBitForBit) {
  const auto [kind, router, dtype] = GetParam();
  VitConfig config = tiny_config();
  config.moe.expert = kind;
  config.moe.router = router;
  config.moe.balance_weight = 0;  // with one expert it adds a constant
  config.moe.prototype_spectrum = 0;
  config.moe.gate = Gate::softmax;  // a sigmoid weighs a lone expert less than 1
  if (kind == ExpertKind::plain) config.moe.basis = Basis::untied;
  expect_dense(config, dtype);
}

/// All but soft: what its one expert sees are means of tokens, in however many slots.
std::vector<RouterKind> routers_of_tokens() {
  std::vector<RouterKind> all = all_routers();
  std::erase(all, RouterKind::soft);
  return all;
}

INSTANTIATE_TEST_SUITE_P(Moe, OneExpert,
                         ::testing::Combine(::testing::Values(ExpertKind::eigen, ExpertKind::plain),
                                            ::testing::ValuesIn(routers_of_tokens()), ::testing::Values(DType::f32, DType::f64)));

using OneLargeExpert = OneExpert;

TEST_F(OneLargeExpert, IsTheDenseNetworkBitForBit) {
  VitConfig config = tiny_config();  // large enough for products to be split over threads
  config.image_size = 32;
  config.width = 64;
  config.moe.hidden = 256;
  config.moe.basis_rank = 8;
  for (DType dtype : {DType::f32, DType::f64}) expect_dense(config, dtype);
}

/// What any router must bear.
class AnyRouter : public ::testing::TestWithParam<RouterKind> {
 protected:
  static VitConfig config() {
    VitConfig c = tiny_config();
    c.moe.router = GetParam();
    c.moe.load_weight = 0;  // its threshold is held constant: differences of the loss see another gradient
    return c;
  }
};

/// Of routers by which a token chooses its experts.
class Edges : public AnyRouter {};

TEST_P(Edges, AllTokensToOneExpertAndNoneToTheOthers) {
  VitConfig c = config();
  c.moe.top_k = 1;
  if (GetParam() == RouterKind::ermoe) c.moe.combine = Combine::raw;  // with one slot, normalized weights are constant
  TinyModel tiny(c);
  tiny.allow = allow_only(tiny, {2});
  expect_gradients_match_differences(tiny);
  EXPECT_EQ(loads(tiny), (std::vector<int64_t>{0, 0, 20, 0}));
  for (const char* name : {"experts.U1", "experts.s1", "experts.b1", "experts.U2", "experts.V2", "experts.b2"})
    for (int64_t e = 0; e < 4; ++e) EXPECT_EQ(largest_of(of_layer(tiny, name).grad.at(e)) > 0, e == 2) << name << " of expert " << e;
}

TEST_P(Edges, AnExpertWithoutAToken) {
  TinyModel tiny(config());
  tiny.allow = allow_only(tiny, {0, 1, 3});
  expect_gradients_match_differences(tiny);
  EXPECT_EQ(loads(tiny)[2], 0);
  EXPECT_EQ(loads(tiny)[0] + loads(tiny)[1] + loads(tiny)[3], 40);
  EXPECT_EQ(largest_of(of_layer(tiny, "experts.U1").grad.at(2)), 0);
}

TEST_P(AnyRouter, EveryExpertForEveryToken) {
  VitConfig c = config();
  c.moe.top_k = c.moe.experts;
  TinyModel tiny(c);
  expect_gradients_match_differences(tiny);
  EXPECT_EQ(loads(tiny), (std::vector<int64_t>{20, 20, 20, 20}));
}

TEST_P(AnyRouter, OneExpertAToken) {
  VitConfig c = config();
  c.moe.top_k = 1;
  TinyModel tiny(c);
  expect_gradients_match_differences(tiny);
  if (GetParam() == RouterKind::ermoe) {
    for (double w : to_doubles(tiny.routes[0].weights)) EXPECT_EQ(w, 1);
  }
}

TEST_P(Edges, SlotsThatNobodyFillsAreLeftOut) {
  VitConfig c = config();
  TinyModel tiny(c);
  tiny.allow = allow_only(tiny, {1});  // two slots, one expert
  expect_gradients_match_differences(tiny);
  EXPECT_EQ(loads(tiny), (std::vector<int64_t>{0, 20, 0, 0}));
  const auto weights = to_doubles(tiny.routes[0].weights);
  const auto ids = tiny.routes[0].plan.expert_ids.span<int32_t>();
  for (size_t n = 0; n < 20; ++n) {
    EXPECT_EQ(ids[2 * n], 1);
    EXPECT_EQ(ids[2 * n + 1], -1);
    EXPECT_EQ(weights[2 * n + 1], 0);
    if (GetParam() == RouterKind::ermoe) {
      EXPECT_EQ(weights[2 * n], 1);
    }
  }
}

TEST_P(Edges, ATokenWithoutAnyExpertPassesThrough) {
  TinyModel tiny(config());
  tiny.allow = allow_only(tiny, {});
  expect_gradients_match_differences(tiny);
  EXPECT_EQ(loads(tiny), (std::vector<int64_t>{0, 0, 0, 0}));
}

/// What recomputation stands on: the forward pass may have rounded otherwise, and must not choose anew.
TEST_P(AnyRouter, AChoiceThatWasMadeIsKept) {
  TinyModel tiny(config());
  const ExecContext& ctx = tiny.bench.ctx;
  const RouterInput in{.x = Variable(random_input(ctx, {{20, 16}}, DType::f64, RngKey{5})),
                       .c = Variable(random_input(ctx, {{20, 16}}, DType::f64, RngKey{6})),
                       .images = 4,
                       .allow = {},
                       .statistics = Statistics::collect};
  Router& router = tiny.model.moe_layers()[0]->router();
  PinnedSelection pinned;
  router.route(ctx, in, pinned);
  ASSERT_TRUE(pinned.made);
  const Tensor others = rotate_experts(ctx, pinned.selection.ids, 4);
  pinned.selection.ids = others;
  EXPECT_TRUE(same_bits(router.route(ctx, in, pinned).plan.expert_ids, others));
}

INSTANTIATE_TEST_SUITE_P(Moe, AnyRouter, ::testing::ValuesIn(all_routers()));
INSTANTIATE_TEST_SUITE_P(Moe, Edges, ::testing::ValuesIn(choosing_routers()));

TEST(FreeExperts, FillInWhereTheMaskClosesTheOthers) {
  VitConfig config = tiny_config();
  config.moe.free_experts = 2;
  TinyModel tiny(config);
  tiny.allow = allow_only(tiny, {3});
  expect_gradients_match_differences(tiny);
  EXPECT_EQ(loads(tiny), (std::vector<int64_t>{0, 0, 0, 20, 10, 10}));
  const auto ids = tiny.routes[0].plan.expert_ids.span<int32_t>();
  const auto fallback = tiny.routes[0].fallback.span<uint8_t>();
  for (size_t n = 0; n < 20; ++n) {
    EXPECT_EQ(ids[2 * n], 3);
    EXPECT_EQ(ids[2 * n + 1], 4 + static_cast<int32_t>(n % 2));  // they take turns
    EXPECT_EQ(fallback[2 * n], 0);
    EXPECT_EQ(fallback[2 * n + 1], 1);
  }
}

TEST(FreeExperts, FillInBelowTheThreshold) {
  for (Basis basis : {Basis::leading, Basis::disjoint}) {
    VitConfig config = tiny_config();
    config.moe.basis = basis;
    config.moe.free_experts = 2;
    config.moe.threshold = "0.2";
    TinyModel tiny(config);
    expect_gradients_match_differences(tiny);
    const RoutingRecord& route = tiny.routes[0];
    const auto ids = route.plan.expert_ids.span<int32_t>();
    const auto scores = to_doubles(route.scores);
    int64_t scored = 0, free = 0;
    for (size_t slot = 0; slot < ids.size(); ++slot) {
      if (ids[slot] >= 4) {
        ++free;
      } else {
        ++scored;
        EXPECT_GT(scores[slot / 2 * 4 + static_cast<size_t>(ids[slot])], 0.2);
      }
      EXPECT_EQ(route.fallback.span<uint8_t>()[slot] != 0, ids[slot] >= 4);
    }
    EXPECT_GT(scored, 0);
    EXPECT_GT(free, 0);
  }
}

TEST(FreeExperts, EnterTheCombineWithTheThreshold) {
  VitConfig config = tiny_config();
  config.moe.free_experts = 1;
  config.moe.threshold = "0.2";
  TinyModel tiny(config);
  tiny.differentiate();
  const RoutingRecord& route = tiny.routes[0];
  const auto ids = route.plan.expert_ids.span<int32_t>();
  const auto scores = to_doubles(route.scores), weights = to_doubles(route.weights);
  int64_t mixed = 0;
  for (size_t n = 0; n < 20; ++n) {
    if (ids[2 * n] >= 4 || ids[2 * n + 1] != 4) continue;
    ++mixed;
    const double s = scores[n * 4 + static_cast<size_t>(ids[2 * n])];
    EXPECT_NEAR(weights[2 * n], s / (s + 0.2), 1e-14);
    EXPECT_NEAR(weights[2 * n + 1], 0.2 / (s + 0.2), 1e-14);
  }
  EXPECT_GT(mixed, 0);
}

TEST(Threshold, AQuantileSendsThatShareOfSlotsToFreeExperts) {
  VitConfig config = tiny_config();
  config.moe.free_experts = 1;
  config.moe.threshold = "quantile:0.3";
  TinyModel tiny(config);
  tiny.differentiate();
  EXPECT_EQ(loads(tiny)[4], 0);  // nothing is known yet: everything qualifies
  tiny.model.accept_step(tiny.bench.ctx);
  tiny.model.refresh(tiny.bench.ctx);
  tiny.differentiate();
  tiny.model.accept_step(tiny.bench.ctx);  // centered from here on: scores have moved once
  tiny.model.refresh(tiny.bench.ctx);
  const ForEachBatch batches = [&](const auto& fn) { fn({.images = tiny.images}); };
  recompute_statistics(tiny.bench.ctx, tiny.model, batches);
  tiny.differentiate();
  // The last two slots of a token may hold the same free expert once only, so a token below twice leaves one slot missing.
  const auto ids = tiny.routes[0].plan.expert_ids.span<int32_t>();
  const auto below = std::ranges::count_if(ids, [](int32_t e) { return e == 4 || e == -1; });
  EXPECT_NEAR(static_cast<double>(below) / 40, 0.3, 0.05);
}

TEST(RoutingBasis, OfFullRankIsRefusedWithTheReason) {
  VitConfig config = tiny_config();
  config.moe.basis_rank = config.width;
  for (Basis basis : {Basis::leading, Basis::untied}) {
    config.moe.basis = basis;
    try {
      Vit model(config);
      ADD_FAILURE() << "nothing was refused";
    } catch (const InputError& e) {
      const std::string message = e.what();
      EXPECT_TRUE(message.starts_with("moe.basis_rank: R = D = 16")) << message;
      EXPECT_NE(message.find("no routing signal"), std::string::npos) << message;
    }
  }
}

/// Why R = D is refused: in a full orthonormal basis every expert's cosine is the same.
TEST(RoutingBasis, OfNearlyFullRankHardlyTellsExpertsApart) {
  const auto spread = [](int64_t R) {
    VitConfig config = tiny_config();
    config.moe.basis_rank = R;
    TinyModel tiny(config);
    tiny.differentiate();
    double sum = 0;
    const auto s = to_doubles(tiny.routes[0].scores);
    for (size_t n = 0; n < 20; ++n) {
      const auto [low, high] =
          std::minmax_element(s.begin() + static_cast<std::ptrdiff_t>(4 * n), s.begin() + static_cast<std::ptrdiff_t>(4 * n + 4));
      sum += *high - *low;
    }
    return sum / 20;
  };
  EXPECT_GT(spread(2), 4 * spread(15));
}

TEST(DisjointBases, AreOneOrthonormalMatrixBesideTheirRests) {
  VitConfig config = tiny_config();
  config.moe.basis = Basis::disjoint;
  config.moe.basis_rank = 3;
  config.moe.free_experts = 1;
  config.moe.threshold = "0.2";
  TinyModel tiny(config, DType::f32);
  TinyTraining training(tiny, {.lr = 1e-2});
  const auto expect_orthonormal = [&] {
    EXPECT_LE(orthogonality_residual(tiny.bench.ctx, of_layer(tiny, "router.basis").value), 5e-6);
    ExpertBank& experts = tiny.model.moe_layers()[0]->experts();
    const Tensor V1 = experts.right_factor(tiny.bench.ctx.with_tape(nullptr)).value;  // (5, 16, 16)
    EXPECT_EQ(V1.shape(), Shape({5, 16, 16}));
    EXPECT_LE(orthogonality_residual(tiny.bench.ctx, V1), 1e-5);  // basis and rest within the promise each, and to each other
  };
  expect_orthonormal();
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(training.step().accepted);
  expect_orthonormal();
}

/// Scores are f32 where a model computes in bf16, and combine_weights takes no two dtypes.
TEST(Temperatures, AreReadInFullPrecision) {
  VitConfig softmax = tiny_config(), cosine = tiny_config();
  softmax.moe.combine = Combine::softmax;
  cosine.moe.router = RouterKind::learned_cosine;
  for (const VitConfig& config : {softmax, cosine}) {
    TinyModel tiny(config, DType::f32);
    EXPECT_TRUE(of_layer(tiny, "router.temperature").full_precision) << enum_name(config.moe.router);
  }
}

TEST(Capacity, FirstChoicesComeFirstAndTheRestIsDropped) {
  VitConfig config = tiny_config();
  config.moe.router = RouterKind::vmoe;
  config.moe.noise = 0;
  TinyModel unlimited(config);
  unlimited.differentiate();
  config.moe.capacity_train = 0.75;  // ceil(20 · 2 · 0.75 / 4) = 8 of an expert
  TinyModel limited(config);
  limited.differentiate();
  const auto wanted = unlimited.routes[0].plan.expert_ids.span<int32_t>(), got = limited.routes[0].plan.expert_ids.span<int32_t>();
  std::vector<int64_t> used(4);
  std::vector<int32_t> expected(wanted.begin(), wanted.end());
  for (size_t k = 0; k < 2; ++k)
    for (size_t n = 0; n < 20; ++n)
      if (int32_t& e = expected[2 * n + k]; used[static_cast<size_t>(e)]++ >= 8) e = -1;
  EXPECT_EQ(std::vector<int32_t>(got.begin(), got.end()), expected);
  EXPECT_LT(limited.routes[0].plan.offsets.span<int32_t>()[4], 40);
  for (int64_t load : loads(limited)) EXPECT_LE(load, 8);
}

TEST(Capacity, PrioritizedKeepsTheLargestWeights) {
  VitConfig config = tiny_config();
  config.moe.router = RouterKind::vmoe;
  config.moe.noise = 0;
  TinyModel unlimited(config);
  unlimited.differentiate();
  config.moe.capacity_train = 0.75;
  config.moe.prioritized = true;
  TinyModel limited(config);
  limited.differentiate();
  const auto wanted = unlimited.routes[0].plan.expert_ids.span<int32_t>(), got = limited.routes[0].plan.expert_ids.span<int32_t>();
  const auto weights = to_doubles(unlimited.routes[0].weights);
  std::vector<size_t> order(20);
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::sort(order, std::greater{}, [&](size_t n) { return weights[2 * n]; });
  EXPECT_FALSE(std::ranges::is_sorted(order)) << "no test";
  std::vector<int64_t> used(4);
  std::vector<int32_t> expected(wanted.begin(), wanted.end());
  for (size_t k = 0; k < 2; ++k)
    for (const size_t n : order)
      if (int32_t& e = expected[2 * n + k]; used[static_cast<size_t>(e)]++ >= 8) e = -1;
  EXPECT_EQ(std::vector<int32_t>(got.begin(), got.end()), expected);
  EXPECT_LT(limited.routes[0].plan.offsets.span<int32_t>()[4], 40);
}

TEST(Capacity, AnOrderOfClaimsWantsACapacity) {
  VitConfig config = tiny_config();
  config.moe.prioritized = true;
  for (const RouterKind router : {RouterKind::linear, RouterKind::vmoe}) {
    config.moe.router = router;
    EXPECT_THROW(Vit{config}, InputError) << enum_name(router);
  }
}

TEST(Capacity, OfEvaluationIsItsOwn) {
  VitConfig config = tiny_config();
  config.moe.router = RouterKind::vmoe;
  config.moe.capacity_train = 0.25;
  config.moe.capacity_eval = 0.5;
  TinyModel tiny(config);
  for (const auto& [mode, capacity] : {std::pair{Mode::train, 3}, std::pair{Mode::eval, 5}}) {
    ExecContext ctx = tiny.bench.ctx;
    ctx.mode = mode;
    ForwardPass pass;
    tiny.model.forward(ctx, Variable(tiny.images), pass);
    EXPECT_EQ(std::ranges::max(pass.routes[0].plan.counts.span<int32_t>()), capacity);
  }
}

TEST(ShuffledExperts, KeepLoadsAndWeightsAndChangeTheOutput) {
  TinyModel tiny;
  ExecContext ctx = tiny.bench.ctx;
  ctx.mode = Mode::eval;
  ForwardPass own, shuffled;
  shuffled.shuffle_experts = true;
  const Tensor y = tiny.model.forward(ctx, Variable(tiny.images), own).value,
               z = tiny.model.forward(ctx, Variable(tiny.images), shuffled).value;
  EXPECT_GT(largest_difference(y, z), 1e-3);
  EXPECT_TRUE(same_bits(own.routes[0].weights, shuffled.routes[0].weights));
  const auto a = own.routes[0].plan.counts.span<int32_t>(), b = shuffled.routes[0].plan.counts.span<int32_t>();
  for (size_t e = 0; e < 4; ++e) EXPECT_EQ(a[e], b[(e + 1) % 4]);
}

struct TrainingCase {
  std::string name;
  std::function<void(MoeConfig&)> change;
};

void PrintTo(const TrainingCase& training, std::ostream* out) { *out << training.name; }

std::vector<TrainingCase> training_cases() {
  std::vector<TrainingCase> cases;
  const std::pair<const char*, Orthogonality> modes[] = {{"newton_schulz", Orthogonality::newton_schulz},
                                                         {"gram_schmidt", Orthogonality::gram_schmidt},
                                                         {"cholesky_qr", Orthogonality::cholesky_qr},
                                                         {"cayley", Orthogonality::cayley},
                                                         {"penalty", Orthogonality::penalty},
                                                         {"none", Orthogonality::none}};
  const std::pair<const char*, Basis> bases[] = {{"leading", Basis::leading}, {"disjoint", Basis::disjoint}, {"untied", Basis::untied}};
  for (const auto& [mode, orthogonality] : modes)
    for (const auto& [name, basis] : bases)
      cases.push_back({fmt::format("{}_{}", mode, name), [=](MoeConfig& moe) {
                         moe.orthogonality = orthogonality;
                         moe.basis = basis;
                       }});
  for (const RouterKind router : all_routers())
    for (ExpertKind kind : {ExpertKind::eigen, ExpertKind::plain})
      cases.push_back({fmt::format("{}_{}_experts", enum_name(router), enum_name(kind)), [=](MoeConfig& moe) {
                         moe.router = router;
                         moe.expert = kind;
                         if (kind == ExpertKind::plain) moe.basis = Basis::untied;
                       }});
  return cases;
}

class Trains : public ::testing::TestWithParam<TrainingCase> {};

TEST_P(Trains, WithFallingLossAndOnTheManifold) {
  VitConfig config = tiny_config();
  GetParam().change(config.moe);
  TinyModel tiny(config, DType::f32);
  TinyTraining training(tiny, {.lr = 3e-3, .weight_decay = 0});
  double first = 0, last = 0;
  for (int i = 0; i < 30; ++i) {
    const StepReport report = training.step();
    ASSERT_TRUE(report.accepted) << report.fault;
    EXPECT_TRUE(report.fault.empty());
    if (i == 0) first = report.loss;
    last = report.loss;
    for (const Parameter* p : tiny.trained())
      if (p->orthonormal) {
        ASSERT_LE(orthogonality_residual(tiny.bench.ctx, p->value), 5e-6) << p->name << " at step " << i;
      }
  }
  EXPECT_LT(last, 0.6 * first);
  const bool stepped_off = config.moe.expert == ExpertKind::eigen && !keeps_orthonormal(config.moe.orthogonality);
  if (stepped_off) {
    EXPECT_GT(orthogonality_residual(tiny.bench.ctx, of_layer(tiny, "experts.U1").value), 1e-4);
  }
}

INSTANTIATE_TEST_SUITE_P(Moe, Trains, ::testing::ValuesIn(training_cases()), [](const auto& training) { return training.param.name; });

}  // namespace
}  // namespace ermoe::testing
