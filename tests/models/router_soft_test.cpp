// Soft mixtures: the layer is its equation, everything is mixed and nothing dropped, and what is recorded of it.
#include "models/routing_metrics.h"
#include "tests/models/tiny_training.h"

namespace ermoe::testing {
namespace {

VitConfig config_of(int64_t slots = 0) {
  VitConfig config = tiny_config();
  config.moe.router = RouterKind::soft;
  config.moe.soft_slots = slots;
  return config;
}

Parameter& of_router(TinyModel& tiny, const std::string& name) { return tiny.parameter("blocks.1.moe.router." + name); }

void multiply(const Tensor& t, double factor) {
  for (double& v : t.span<double>()) v *= factor;
}

using Matrix = std::vector<std::vector<double>>;

Matrix rows_of(const Tensor& t) {
  const auto flat = to_doubles(t);
  const auto width = static_cast<size_t>(t.shape()[-1]);
  Matrix rows;
  for (size_t i = 0; i < flat.size(); i += width)
    rows.emplace_back(flat.begin() + static_cast<int64_t>(i), flat.begin() + static_cast<int64_t>(i + width));
  return rows;
}

double cosine(const std::vector<double>& a, const std::vector<double>& b) {
  double ab = 0, aa = 0, bb = 0;
  for (size_t i = 0; i < a.size(); ++i) ab += a[i] * b[i], aa += a[i] * a[i], bb += b[i] * b[i];
  return ab / std::sqrt(aa * bb);
}

/// One image's x (T, D) to y (T, D), loop by loop. `combine` (T, S) is left for who wants to see it.
Matrix by_hand(TinyModel& tiny, const Matrix& x, Matrix& combine) {
  const ExecContext& ctx = tiny.bench.ctx;
  const Matrix phi = rows_of(of_router(tiny, "phi").value);
  const double scale = of_router(tiny, "scale").value.data<double>()[0];
  const size_t T = x.size(), S = phi.size(), D = x[0].size();
  Matrix e(T, std::vector<double>(S));
  for (size_t t = 0; t < T; ++t)
    for (size_t s = 0; s < S; ++s) e[t][s] = std::exp(scale * cosine(x[t], phi[s]));
  Matrix seen(S, std::vector<double>(D));
  for (size_t s = 0; s < S; ++s) {
    double sum = 0;
    for (size_t t = 0; t < T; ++t) sum += e[t][s];
    for (size_t t = 0; t < T; ++t)
      for (size_t d = 0; d < D; ++d) seen[s][d] += e[t][s] / sum * x[t][d];
  }
  const Tensor rows = ctx.empty({static_cast<int64_t>(S), static_cast<int64_t>(D)}, DType::f64);
  Tensor ids = ctx.empty({static_cast<int64_t>(S), 1}, DType::i32);
  for (size_t s = 0; s < S; ++s) ids.data<int32_t>()[s] = static_cast<int32_t>(s % 4);
  const RoutingPlan plan = make_plan(ctx, ids, 4);
  const auto row_of = plan.slot_row.span<int32_t>();
  for (size_t s = 0; s < S; ++s) std::ranges::copy(seen[s], rows.data<double>() + static_cast<size_t>(row_of[s]) * D);
  const Matrix made = rows_of(tiny.model.moe_layers()[0]->experts().forward(ctx, Variable(rows), plan).value);
  Matrix y(T, std::vector<double>(D));
  combine = e;
  for (size_t t = 0; t < T; ++t) {
    double sum = 0;
    for (double v : e[t]) sum += v;
    for (size_t s = 0; s < S; ++s) {
      combine[t][s] /= sum;
      for (size_t d = 0; d < D; ++d) y[t][d] += combine[t][s] * made[static_cast<size_t>(row_of[s])][d];
    }
  }
  return y;
}

TEST(Soft, IsItsEquation) {
  for (const int64_t slots : {0, 1, 4}) {
    TinyModel tiny(config_of(slots));
    of_router(tiny, "scale").value.data<double>()[0] = 3;
    const Tensor x = random_input(tiny.bench.ctx, {{4, 5, 16}}, DType::f64, RngKey{8});
    ForwardPass pass;
    PinnedSelection pinned;
    const Tensor y = tiny.model.moe_layers()[0]->forward(tiny.bench.ctx, Variable(x), {}, pass, pinned).value;
    const Matrix scores = rows_of(pass.routes[0].scores);
    const auto P = static_cast<size_t>(slots == 0 ? 3 : slots);
    for (int64_t b = 0; b < 4; ++b) {
      Matrix combine;
      const Matrix want = by_hand(tiny, rows_of(x.slice(b, b + 1)), combine), got = rows_of(y.slice(b, b + 1));
      for (size_t t = 0; t < 5; ++t) {
        EXPECT_LE(normalised_error(got[t], want[t]), 1e-26) << "image " << b << " token " << t;
        for (size_t e = 0; e < 4; ++e) {
          double share = 0;
          for (size_t i = 0; i < P; ++i) share += combine[t][i * 4 + e];
          EXPECT_NEAR(scores[static_cast<size_t>(b) * 5 + t][e], share, 1e-14);
        }
      }
    }
  }
}

TEST(Soft, HasSlotsForAsMuchWorkAsChoosing) {
  EXPECT_EQ(soft_slots(config_of()), 3);  // 2 · 5 / 4, rounded up
  EXPECT_EQ(soft_slots(config_of(7)), 7);
  VitConfig many = config_of();
  many.moe.experts = 64;
  EXPECT_EQ(soft_slots(many), 1);
  VitConfig average = config_of();
  average.pool = Pool::average;  // four tokens
  EXPECT_EQ(soft_slots(average), 2);
  TinyModel tiny(config_of());
  tiny.differentiate();
  EXPECT_EQ(to_vector<int32_t>(tiny.routes[0].plan.counts), std::vector<int32_t>(4, 4 * 3));  // slots of four images
  EXPECT_EQ(of_router(tiny, "phi").shape, Shape({12, 16}));
}

TEST(Soft, LengthsDecideNothing) {
  TinyModel tiny(config_of());
  const double loss = tiny.total_loss();
  multiply(of_router(tiny, "phi").value, 5);
  EXPECT_NEAR(tiny.total_loss(), loss, 1e-13);
  multiply(of_router(tiny, "scale").value, 5);
  EXPECT_GT(std::abs(tiny.total_loss() - loss), 1e-6);
}

TEST(Soft, ImagesDoNotMix) {
  TinyModel tiny(config_of());
  ForwardPass pass;
  const auto together = to_doubles(tiny.model.forward(tiny.bench.ctx, Variable(tiny.images), pass).value.slice(2, 3));
  const auto alone = to_doubles(tiny.model.forward(tiny.bench.ctx, Variable(tiny.images.slice(2, 3)), pass).value);
  EXPECT_LE(normalised_error(together, alone), 1e-26);
}

TEST(Soft, ATokenWithoutADirectionLeavesNumbers) {
  TinyModel tiny(config_of());
  fill(of_router(tiny, "phi").value, 0);
  fill(tiny.images, 0);
  tiny.differentiate();
  for (double share : to_doubles(tiny.routes[0].scores)) EXPECT_NEAR(share, 0.25, 1e-14);
  for (const auto& [name, grad] : tiny.gradients()) EXPECT_TRUE(std::isfinite(largest_of(grad))) << name;
}

TEST(Soft, AMaskIsRefused) {
  TinyModel tiny(config_of());
  tiny.allow = Tensor::zeros(tiny.bench.allocator, {20, 4}, DType::u8);
  EXPECT_THROW(tiny.total_loss(), Error);
}

/// Evaluations look at tokens: every expert of each, the one that counts most first.
TEST(Soft, AnEvaluationRecordsExpertsByTheirWeight) {
  TinyModel tiny(config_of());
  ExecContext ctx = tiny.bench.ctx;
  ctx.mode = Mode::eval;
  ForwardPass pass;
  tiny.model.forward(ctx, Variable(tiny.images), pass);
  const RoutingRecord& route = pass.routes[0];
  ASSERT_EQ(route.plan.expert_ids.shape(), Shape({20, 4}));
  const auto ids = route.plan.expert_ids.span<int32_t>();
  const auto weights = to_doubles(route.weights), scores = to_doubles(route.scores);
  std::vector<double> load(4);
  for (size_t n = 0; n < 20; ++n) {
    double sum = 0;
    for (size_t k = 0; k < 4; ++k) {
      if (k > 0) {
        EXPECT_LE(weights[4 * n + k], weights[4 * n + k - 1]);
      }
      EXPECT_EQ(weights[4 * n + k], scores[4 * n + static_cast<size_t>(ids[4 * n + k])]);
      sum += weights[4 * n + k];
      load[k] += scores[4 * n + k] / 20;
    }
    EXPECT_NEAR(sum, 1, 1e-14);
  }
  RoutingCollector collector(tiny.model);
  collector.add(pass.routes, {}, std::vector<int64_t>{0, 1, 2, 3});
  const RoutingMetrics m = collector.metrics(nullptr).at(0);
  for (size_t e = 0; e < 4; ++e) EXPECT_NEAR(m.load[e], load[e], 1e-14);
  EXPECT_GT(m.gini, 0);
}

TEST(Soft, RepeatsBitForBit) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    TinyModel a(config_of(), dtype), b(config_of(), dtype);
    a.differentiate();
    b.differentiate();
    expect_same(a.gradients(), b.gradients());
  }
}

TEST(Soft, ShufflingSendsSlotsToOtherExperts) {
  TinyModel tiny(config_of());
  ForwardPass straight, shuffled;
  shuffled.shuffle_experts = true;
  const auto a = to_doubles(tiny.model.forward(tiny.bench.ctx, Variable(tiny.images), straight).value);
  const auto b = to_doubles(tiny.model.forward(tiny.bench.ctx, Variable(tiny.images), shuffled).value);
  EXPECT_GT(normalised_error(a, b), 1e-10);
}

}  // namespace
}  // namespace ermoe::testing
