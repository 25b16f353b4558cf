// Metrics of routing against cases that can be computed by hand.
#include "models/routing_metrics.h"

#include "models/svd.h"
#include "tests/models/dual_fixture.h"
#include "tests/models/tiny_model.h"

#include <cmath>
#include <numeric>

namespace ermoe::testing {
namespace {

TEST(Gini, OfListsThatCanBeComputedByHand) {
  const auto gini = [](std::vector<double> values) { return gini_of(values); };
  EXPECT_EQ(gini({}), 0);
  EXPECT_EQ(gini({0, 0, 0}), 0);
  EXPECT_NEAR(gini({5, 5, 5, 5}), 0, 1e-15);
  EXPECT_NEAR(gini({0, 0, 0, 7}), 0.75, 1e-15);  // (E-1)/E
  EXPECT_NEAR(gini({1, 2, 3, 4}), 0.25, 1e-15);
  EXPECT_NEAR(gini({4, 1, 3, 2}), 0.25, 1e-15);
  EXPECT_NEAR(gini({1, 3}), 0.25, 1e-15);
  // By its definition: mean absolute difference over twice the mean.
  const std::vector<double> values = {0.3, 2.5, 0, 1.1, 9};
  double differences = 0, sum = 0;
  for (double a : values) {
    sum += a;
    for (double b : values) differences += std::abs(a - b);
  }
  EXPECT_NEAR(gini_of(values), differences / (2 * 5 * sum), 1e-15);
}

TEST(ClassInformation, IsZeroWhereIndependentAndLnKWhereAligned) {
  std::vector<std::vector<int32_t>> independent, aligned;
  std::vector<int32_t> labels;
  for (int32_t image = 0; image < 12; ++image) {
    labels.push_back(image % 3);
    independent.push_back({2, 4, 6});
    aligned.emplace_back(3);
    aligned.back()[static_cast<size_t>((image + 1) % 3)] = 9;
  }
  EXPECT_NEAR(class_information(independent, labels), 0, 1e-15);
  EXPECT_NEAR(class_information(aligned, labels), std::log(3.0), 1e-14);
  EXPECT_EQ(class_information({}, {}), 0);
}

TEST(ClassInformation, OfATableComputedByHand) {
  // Joint shares: expert 0 class 0: 3/8, expert 0 class 1: 1/8, expert 1 class 0: 1/8, expert 1 class 1: 3/8.
  const double expected = 2 * (3.0 / 8 * std::log(1.5) + 1.0 / 8 * std::log(0.5));
  EXPECT_NEAR(class_information({{3, 1}, {1, 3}}, std::vector<int32_t>{0, 1}), expected, 1e-15);
}

Tensor bases(TestBench& bench, int64_t E, int64_t R, int64_t D) {
  const Tensor q = bench.ctx.empty({E, D, R}, DType::f64), packed = bench.ctx.empty({E, R, D}, DType::f64);
  init_orthonormal(bench.ctx, q, RngKey{4});
  for (int64_t e = 0; e < E; ++e)
    for (int64_t d = 0; d < D; ++d)
      for (int64_t r = 0; r < R; ++r) packed.data<double>()[(e * R + r) * D + d] = q.data<double>()[(e * D + d) * R + r];
  return packed;
}

TEST(SubspaceOverlap, OfRandomSubspacesIsTheirShareOfTheWidth) {
  TestBench bench;
  // 28 pairs of subspaces; the mean of ‖AᵀB‖²/R over random ones is R/D, its deviation a pair about sqrt(2)/D.
  for (int64_t R : {8, 16, 32})
    EXPECT_NEAR(subspace_overlap(bases(bench, 8, R, 64)), static_cast<double>(R) / 64, 4 * std::sqrt(2.0 / 28) / 64);
}

TEST(SubspaceOverlap, IsZeroForDisjointAndOneForEqualSubspaces) {
  TestBench bench;
  const Tensor whole = bases(bench, 1, 12, 12);  // (1, 12, 12): rows are orthonormal
  EXPECT_NEAR(subspace_overlap(whole.reshape({4, 3, 12})), 0, 1e-28);
  const Tensor twice = bench.ctx.empty({2, 6, 12}, DType::f64);
  copy(whole.reshape({12, 12}).slice(0, 6), twice.at(0));
  for (int64_t i = 0; i < 6; ++i) copy(whole.reshape({12, 12}).at(5 - i), twice.at(1).at(i));  // another basis of the same subspace
  EXPECT_NEAR(subspace_overlap(twice), 1, 1e-14);
  EXPECT_EQ(subspace_overlap(whole), 0);  // of one expert with nothing
}

TEST(SubspaceOverlap, OfPairsIsATableWhoseMeanItIs) {
  TestBench bench;
  const Tensor packed = bases(bench, 3, 4, 12);
  const std::vector<double> all = subspace_overlaps(packed);
  ASSERT_EQ(all.size(), 9u);
  for (size_t e = 0; e < 3; ++e) EXPECT_NEAR(all[e * 4], 1, 1e-14);
  EXPECT_EQ(all[1], all[3]);
  EXPECT_NEAR(subspace_overlap(packed), (all[1] + all[2] + all[5]) / 3, 1e-15);
}

TEST(SubspaceOverlap, OfAModelIsMeasuredOnItsRoutingBases) {
  for (Basis basis : {Basis::leading, Basis::disjoint}) {
    VitConfig config = tiny_config();
    config.moe.basis = basis;
    TinyModel tiny(config);
    const double overlap = RoutingCollector(tiny.model).metrics(nullptr).at(0).overlap;
    if (basis == Basis::disjoint) {
      EXPECT_NEAR(overlap, 0, 1e-20);
    } else {
      EXPECT_GT(overlap, 0.05);
    }
  }
}

TEST(SubspaceOverlap, IsNotNamedWhereRoutersHaveNoBases) {
  const auto names_overlap = [](RouterKind router) {
    VitConfig config = tiny_config();
    config.moe.router = router;
    TinyModel tiny(config);
    const auto values = routing_values(RoutingCollector(tiny.model).metrics(nullptr).at(0));
    return std::ranges::any_of(values, [](const auto& value) { return value.first == "overlap"; });
  };
  EXPECT_TRUE(names_overlap(RouterKind::ermoe));
  EXPECT_FALSE(names_overlap(RouterKind::vmoe));
}

/// A pass over samples of so many tokens each, numbered from 0.
void add_pass(RoutingCollector& collector, const std::vector<RoutingRecord>& routes, std::span<const int32_t> labels, int64_t tokens_each) {
  std::vector<int64_t> samples(static_cast<size_t>(routes.at(0).plan.tokens / tokens_each));
  std::iota(samples.begin(), samples.end(), int64_t{0});
  collector.add(routes, labels, samples);
}

class Collected : public ::testing::Test {
 protected:
  Collected() : tiny_(config()) {}

  static VitConfig config() {
    VitConfig c = tiny_config();  // E 4, K 2, one MoE layer
    c.moe.free_experts = 1;
    return c;
  }

  /// A pass of N = ids/2 tokens; score of expert e is `score(e)`, of free experts there is none.
  std::vector<RoutingRecord> pass(const std::vector<int32_t>& ids, std::vector<double> scores = {0.1, 0.2, 0.3, 0.4},
                                  const std::vector<uint8_t>& fallback = {}) {
    const auto N = static_cast<int64_t>(ids.size()) / 2;
    RoutingRecord record;
    record.block = 1;
    record.plan = make_plan(tiny_.bench.ctx, Tensor::from<int32_t>(tiny_.bench.allocator, {N, 2}, ids), 5);
    record.scores = tiny_.bench.ctx.empty({N, 4}, DType::f64);
    for (int64_t n = 0; n < N; ++n) std::ranges::copy(scores, record.scores.data<double>() + n * 4);
    if (!fallback.empty()) record.fallback = Tensor::from<uint8_t>(tiny_.bench.allocator, {N, 2}, fallback);
    return {record};
  }

  RoutingMetrics metrics_of(const std::vector<int32_t>& ids) {
    RoutingCollector collector(tiny_.model);
    add_pass(collector, pass(ids), {}, static_cast<int64_t>(ids.size()) / 2);
    return collector.metrics(nullptr).at(0);
  }

  TinyModel tiny_;
};

TEST_F(Collected, AFlatLoad) {
  const RoutingMetrics m = metrics_of({0, 1, 2, 3, 1, 0, 3, 2});
  EXPECT_EQ(m.block, 1);
  EXPECT_EQ(m.load, std::vector<double>(4, 0.25));
  EXPECT_NEAR(m.gini, 0, 1e-15);
  EXPECT_NEAR(m.cv, 0, 1e-15);
  EXPECT_NEAR(m.max_over_mean, 1, 1e-15);
  EXPECT_NEAR(m.entropy, 1, 1e-15);
  EXPECT_EQ(m.dead_experts, 0);
  EXPECT_EQ(m.missing_rate, 0);
  EXPECT_NEAR(m.mean_top_score, 0.4, 1e-15);
  EXPECT_EQ(m.churn, -1);
}

TEST_F(Collected, ASkewedLoad) {
  const RoutingMetrics m = metrics_of({0, 1, 0, 1, 0, 1, 0, 2});  // 4, 3, 1, 0 of 8
  EXPECT_EQ(m.load, (std::vector<double>{0.5, 0.375, 0.125, 0}));
  EXPECT_NEAR(m.gini, 0.4375, 1e-15);
  EXPECT_NEAR(m.cv, std::sqrt((4.0 + 1 + 1 + 4) / 4) / 2, 1e-15);  // of 4, 3, 1, 0 with mean 2
  EXPECT_NEAR(m.max_over_mean, 2, 1e-15);
  EXPECT_EQ(m.dead_experts, 1);
  EXPECT_NEAR(m.entropy, -(0.5 * std::log(0.5) + 0.375 * std::log(0.375) + 0.125 * std::log(0.125)) / std::log(4.0), 1e-15);
}

TEST_F(Collected, FreeMissingAndFallbackSlotsAreCountedApart) {
  RoutingCollector collector(tiny_.model);
  add_pass(collector, pass({0, 4, 1, -1, 2, 3, 0, 4}, {0.1, 0.2, 0.001, 0.4}, {0, 1, 0, 1, 0, 1, 0, 1}), {}, 4);
  const RoutingMetrics m = collector.metrics(nullptr).at(0);
  EXPECT_EQ(m.load, (std::vector<double>{0.4, 0.2, 0.2, 0.2}));  // of the scored experts' five slots
  EXPECT_EQ(m.free_share, 2.0 / 8);
  EXPECT_EQ(m.missing_rate, 1.0 / 8);
  EXPECT_EQ(m.fallback_rate, 3.0 / 8);  // a missing slot is missing, not a fallback
  EXPECT_EQ(m.floor_share, 1.0 / 7);    // expert 2's score lies on the floor
}

/// A small score is on the floor only where weights have one.
TEST(FloorShare, IsOfNormalizedEigenRoutersAlone) {
  const auto floor_share = [](RouterKind router, Combine combine) {
    VitConfig config = tiny_config();
    config.moe.router = router;
    config.moe.combine = combine;
    TinyModel tiny(config);
    RoutingRecord record;
    record.block = 1;
    record.plan = make_plan(tiny.bench.ctx, Tensor::from<int32_t>(tiny.bench.allocator, {1, 2}, std::vector<int32_t>{0, 1}), 4);
    record.scores = Tensor::from<double>(tiny.bench.allocator, {1, 4}, std::vector<double>{0.4, 0.0005, 0.3, 0.2});
    RoutingCollector collector(tiny.model);
    add_pass(collector, {record}, {}, 1);
    return collector.metrics(nullptr).at(0).floor_share;
  };
  EXPECT_EQ(floor_share(RouterKind::ermoe, Combine::normalized), 0.5);
  EXPECT_EQ(floor_share(RouterKind::ermoe, Combine::softmax), 0);
  EXPECT_EQ(floor_share(RouterKind::linear, Combine::normalized), 0);
}

/// Of experts that choose tokens: a slot a token and expert, but rows only for those that are taken.
TEST_F(Collected, SlotsWithoutARowAreNotMissing) {
  const std::vector<int32_t> ids = {0, 1, -1, -1, 2, -1, 3, -1};
  std::vector<RoutingRecord> routes = pass(ids);
  routes[0].plan = make_plan(tiny_.bench.ctx, routes[0].plan.expert_ids, 5, 5);  // room for one more
  RoutingCollector collector(tiny_.model);
  add_pass(collector, routes, {}, 4);
  const RoutingMetrics m = collector.metrics(nullptr).at(0);
  EXPECT_EQ(m.missing_rate, 1.0 / 5);
  EXPECT_EQ(m.unrouted, 1.0 / 4);
  EXPECT_EQ(m.load, std::vector<double>(4, 0.25));
}

TEST_F(Collected, OfSoftRoutingLoadIsWeight) {
  std::vector<RoutingRecord> routes = pass({3, 2, 3, 2, 3, 2}, {0.001, 0.199, 0.3, 0.5});
  routes[0].plan = make_plan(tiny_.bench.ctx, ids_in_turn(tiny_.bench.ctx, {3, 4}, 4, 1), 5);
  routes[0].soft = true;
  RoutingCollector collector(tiny_.model);
  add_pass(collector, routes, {}, 3);
  const RoutingMetrics m = collector.metrics(nullptr).at(0);
  const double load[] = {0.001, 0.199, 0.3, 0.5};
  for (size_t e = 0; e < 4; ++e) EXPECT_NEAR(m.load[e], load[e], 1e-15);
  EXPECT_EQ(m.dead_experts, 1);
  EXPECT_EQ(m.missing_rate, 0);
  EXPECT_EQ(m.unrouted, 0);
  EXPECT_EQ(m.floor_share, 0);
}

TEST_F(Collected, ChurnIsTheShareOfTokensWhoseTopExpertChanged) {
  RoutingCollector before(tiny_.model), after(tiny_.model), shorter(tiny_.model);
  add_pass(before, pass({0, 1, 2, 3, 1, 0, 3, 2}), {}, 2);
  add_pass(after, pass({0, 2, 2, 1}), {}, 2);  // second slots do not count
  add_pass(after, pass({0, 1, 3, 2}), {}, 2);
  add_pass(shorter, pass({0, 1}), {}, 1);
  EXPECT_EQ(after.metrics(&before).at(0).churn, 0.25);
  EXPECT_EQ(before.metrics(&before).at(0).churn, 0);
  EXPECT_EQ(shorter.metrics(&before).at(0).churn, -1);  // not the same tokens
}

TEST_F(Collected, ClassInformationStandsBesideItsNull) {
  RoutingCollector collector(tiny_.model);
  const std::vector<int32_t> labels = {0, 1, 2, 3};
  for (int batch = 0; batch < 8; ++batch) {  // four images of two tokens; the class names the first slot's expert
    add_pass(collector, pass({0, 1, 0, 2, 1, 0, 1, 3, 2, 0, 2, 1, 3, 0, 3, 1}), labels, 2);
  }
  const RoutingMetrics m = collector.metrics(nullptr).at(0);
  EXPECT_NEAR(m.class_information, std::log(4.0), 1e-14);
  EXPECT_GT(m.class_information_null, 0);  // what 32 images of no connection show by chance
  EXPECT_LT(m.class_information_null, 0.4);
  EXPECT_GT(m.class_information_null_sd, 0);
  EXPECT_LT(m.class_information_null_sd, m.class_information_null);
  EXPECT_EQ(m.class_information_p, 0.01);  // none of 99 permutations reaches it
}

TEST_F(Collected, ExpertsThatKnowNothingOfClassesHaveALargeP) {
  RoutingCollector collector(tiny_.model);
  const std::vector<int32_t> labels = {0, 1, 2, 3};
  for (int batch = 0; batch < 8; ++batch) add_pass(collector, pass({0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3}), labels, 2);
  const RoutingMetrics m = collector.metrics(nullptr).at(0);
  EXPECT_EQ(m.class_information, 0);  // each image has the same experts
  EXPECT_EQ(m.class_information_null_sd, 0);
  EXPECT_EQ(m.class_information_p, 1);
}

TEST_F(Collected, ChurnIsNamedWhereThereIsSomethingToCompareWith) {
  RoutingCollector first(tiny_.model), second(tiny_.model);
  for (RoutingCollector* collector : {&first, &second}) add_pass(*collector, pass({0, 1, 2, 3}), {}, 2);
  const auto names_churn = [](const RoutingMetrics& m) {
    const auto values = routing_values(m);
    return std::ranges::any_of(values, [](const auto& value) { return value.first == "churn"; });
  };
  EXPECT_FALSE(names_churn(first.metrics(nullptr).at(0)));
  EXPECT_TRUE(names_churn(second.metrics(&first).at(0)));
}

TEST_F(Collected, TokensAreCountedByExpertAndClass) {
  RoutingCollector collector(tiny_.model);
  const std::vector<int32_t> labels = {2, 0};
  add_pass(collector, pass({0, 1, 0, 2, 3, 1, 4, 0}), labels, 2);  // first slots: 0 0 | 3 and the free 4
  const std::vector<double> counts = collector.class_counts(3).at(0);
  EXPECT_EQ(counts, (std::vector<double>{0, 0, 2, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0}));
}

TEST_F(Collected, WithoutClassesNothingIsSaidOfThem) {
  RoutingCollector collector(tiny_.model);
  add_pass(collector, pass({0, 1, 2, 3}), {}, 2);
  for (const auto& [name, value] : routing_values(collector.metrics(nullptr).at(0))) EXPECT_FALSE(name.starts_with("class")) << name;
}

TEST_F(Collected, PaddingCountsNowhere) {
  RoutingCollector plain(tiny_.model), padded(tiny_.model);
  add_pass(plain, pass({0, 4, 1, -1, 2, 3, 0, 4}, {0.1, 0.2, 0.001, 0.4}, {0, 1, 0, 1, 0, 1, 0, 1}), std::vector<int32_t>{0, 1}, 2);
  std::vector<RoutingRecord> routes =
      pass({0, 4, 1, -1, -1, -1, 2, 3, -1, -1, 0, 4}, {0.1, 0.2, 0.001, 0.4}, {0, 1, 0, 1, 1, 1, 0, 1, 1, 1, 0, 1});
  routes[0].countable = Tensor::from<uint8_t>(tiny_.bench.allocator, {6, 4}, std::vector<uint8_t>{1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0,  //
                                                                                                  1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1});
  for (int64_t n : {2, 4})
    for (int64_t e = 0; e < 4; ++e) routes[0].scores.data<double>()[4 * n + e] = 99;
  add_pass(padded, routes, std::vector<int32_t>{0, 1}, 3);
  const RoutingMetrics a = plain.metrics(nullptr).at(0), b = padded.metrics(&plain).at(0);
  EXPECT_EQ(a.load, b.load);
  EXPECT_EQ(b.churn, 0);
  const auto values = routing_values(a), others = routing_values(b);
  for (const auto& [name, value] : values) {
    const auto same = std::ranges::find(others, name, [](const auto& other) { return other.first; });
    ASSERT_NE(same, others.end()) << name;
    EXPECT_EQ(value, same->second) << name;
  }
  EXPECT_EQ(plain.class_counts(2), padded.class_counts(2));
}

/// Towers see samples of their own, as many tokens a sample each; a pass of pairs has both.
TEST(CollectedOfTwoTowers, LayersHaveTheSamplesOfTheirTower) {
  TestBench bench;
  const DualConfig config = small_dual("1", "0,1");
  DualEncoder model(config, pair_loss);
  model.allocate(bench.ctx, DType::f64);
  model.init(bench.ctx, RngKey{1});
  const Tensor images = random_input(bench.ctx, {input_shape(config.image, 4)}, DType::f64, RngKey{3});
  const Tensor tokens = Tensor::from<int32_t>(bench.allocator, {4, 7}, four_captions());
  ExecContext eval = bench.ctx;
  eval.mode = Mode::eval;
  ForwardPass of_images, of_texts, of_pairs;
  model.image_features(eval, Variable(images.slice(0, 2)), of_images);
  model.text_features(eval, tokens, of_texts);
  model.run(eval, {.images = images, .allow = {}, .tokens = tokens}, of_pairs);

  RoutingCollector apart(model), together(model);
  apart.add(of_images.routes, std::vector<int32_t>{0, 1}, std::vector<int64_t>{7, 8});
  apart.add(of_texts.routes, {}, std::vector<int64_t>{3, 1, 2, 0});
  together.add(of_pairs.routes, {}, std::vector<int64_t>{0, 1, 2, 3});
  const auto some = apart.metrics(nullptr), all = together.metrics(&apart);
  ASSERT_EQ(some.size(), 3u);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(some[i].block, static_cast<int64_t>(i) + 1);  // two blocks of images before those of texts
  EXPECT_GE(some[0].class_information, 0);
  EXPECT_EQ(some[1].class_information, -1);  // texts have no classes
  EXPECT_EQ(all[0].churn, -1);               // four images, and two before
  for (size_t i = 1; i < 3; ++i) {
    EXPECT_EQ(all[i].churn, 0);
    EXPECT_EQ(all[i].load, some[i].load);
    EXPECT_EQ(all[i].missing_rate, 0);
    EXPECT_EQ(all[i].unrouted, 0);
  }
  EXPECT_EQ(together.class_counts(2)[1].size(), 8u);
}

TEST_F(Collected, WhatDoesNotFitIsAFault) {
  RoutingCollector collector(tiny_.model);
  EXPECT_THROW(collector.add(pass({0, 1, 2, 3, 0, 1}), {}, std::vector<int64_t>{0, 1}), Error);  // three tokens of two samples
  EXPECT_THROW(collector.add(pass({0, 1, 2, 3}), std::vector<int32_t>{0}, std::vector<int64_t>{0, 1}), Error);
  std::vector<RoutingRecord> other = pass({0, 1, 2, 3});
  other[0].block = 5;
  EXPECT_THROW(collector.add(other, {}, std::vector<int64_t>{0, 1}), Error);
}

TEST(RoutingValues, NameEveryNumberOnce) {
  RoutingMetrics m;
  m.gini = 0.25;
  m.dead_experts = 3;
  m.class_information = 0.5;
  const auto values = routing_values(m);
  std::map<std::string, double> by_name(values.begin(), values.end());
  EXPECT_EQ(by_name.size(), values.size());
  EXPECT_EQ(by_name.at("gini"), 0.25);
  EXPECT_EQ(by_name.at("dead_experts"), 3);
  EXPECT_EQ(by_name.at("class_information"), 0.5);
}

}  // namespace
}  // namespace ermoe::testing
