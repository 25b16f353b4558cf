// Gradient purity: its figures against gradients of whole losses, and that measuring leaves no trace.
#include "models/purity.h"

#include "tests/models/tiny_model.h"

#include <numeric>

namespace ermoe::testing {
namespace {

constexpr double balance = 0.3;

VitConfig switched(double weight = balance) {
  VitConfig config = tiny_config();
  config.moe.router = RouterKind::switch_lbl;
  config.moe.balance_weight = weight;
  return config;
}

MicroBatch batch_of(const TinyModel& tiny) { return {.images = tiny.images, .targets = tiny.targets, .allow = tiny.allow}; }

std::vector<TermPurity> measure(TinyModel& tiny, int64_t draws = 0) {
  ExecContext ctx = tiny.bench.ctx;
  ctx.mode = Mode::train;
  const auto loss = [&](const ExecContext& c, const Variable& logits, const Tensor& to) { return tiny.loss_of(c, logits, to); };
  return measure_purity(ctx, tiny.model, batch_of(tiny), loss, draws);
}

/// Gradients of the parameters whose names hold `part`, of the whole loss.
std::vector<double> gradients(TinyModel& tiny, const std::string& part) {
  tiny.differentiate();
  tiny.model.discard_step();
  std::vector<double> all;
  for (const auto& [name, grad] : tiny.gradients())
    if (name.find(part) != std::string::npos)
      for (const double v : to_doubles(grad)) all.push_back(v);
  return all;
}

double product(const std::vector<double>& a, const std::vector<double>& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

/// The term's gradient is what the whole loss has beyond the task's, whose model has the same weights and the term's weight 0.
void expect_agreement(const Agreement& got, const VitConfig& config, const VitConfig& task_alone, const std::string& part) {
  TinyModel whole(config), task(task_alone);
  const std::vector<double> all = gradients(whole, part), of_task = gradients(task, part);
  std::vector<double> of_term = all;
  for (size_t i = 0; i < all.size(); ++i) of_term[i] -= of_task[i];
  const double norms = std::sqrt(product(of_task, of_task)), term = std::sqrt(product(of_term, of_term));
  ASSERT_TRUE(got.cosine.has_value());
  EXPECT_NEAR(*got.cosine, product(of_task, of_term) / norms / term, 1e-10);
  EXPECT_NEAR(got.norm_ratio.value(), term / norms, 1e-10);
}

TEST(Purity, IsTheCosineOfTheTermsGradientWithTheTasks) {
  for (const bool recompute : {false, true}) {
    VitConfig config = switched(), task = switched(0);
    config.moe.layers = task.moe.layers = "0,1";  // else the term reaches no expert: they stand behind it
    config.recompute = task.recompute = recompute;
    TinyModel tiny(config);
    const std::vector<TermPurity> terms = measure(tiny);
    ASSERT_EQ(terms.size(), 2u);
    EXPECT_EQ(terms[0].term, "");
    EXPECT_EQ(terms[1].term, "balance");
    expect_agreement(terms[0].experts, config, task, ".moe.experts.");
    expect_agreement(terms[0].router, config, task, ".moe.router.");
    EXPECT_EQ(terms[0].router.cosine, terms[1].router.cosine);
  }
}

TEST(Purity, OfEachTermIsItsOwn) {
  VitConfig both = switched();
  both.moe.simbal_weight = 0.2;
  TinyModel tiny(both), alone(switched());
  const std::vector<TermPurity> terms = measure(tiny), one = measure(alone);
  ASSERT_EQ(terms.size(), 3u);
  EXPECT_EQ(terms[1].term, "balance");
  EXPECT_EQ(terms[2].term, "simbal");
  EXPECT_NEAR(*terms[1].router.cosine, *one[0].router.cosine, 1e-12);
  EXPECT_NE(*terms[0].router.cosine, *terms[1].router.cosine);
  EXPECT_FALSE(terms[2].experts.cosine.has_value());  // SimBal's has no gradient there
  EXPECT_EQ(terms[2].experts.norm_ratio.value(), 0);
  EXPECT_GT(terms[2].router.norm_ratio.value(), 0);
}

/// A new head is zero, and nothing comes through it.
TEST(Purity, WithoutAGradientOfTheTaskThereIsNoFigure) {
  TinyModel tiny(switched());
  fill(tiny.parameter("head.weight").value, 0);
  for (const TermPurity& term : measure(tiny)) {
    EXPECT_FALSE(term.router.cosine.has_value());
    EXPECT_FALSE(term.router.norm_ratio.has_value());
  }
  EXPECT_TRUE(purity_values(measure(tiny)).empty());
}

TEST(Purity, OfNoTermIsNothing) {
  TinyModel tiny;
  EXPECT_TRUE(measure(tiny).empty());
}

TEST(Purity, ThePenaltyOfFactorsIsNoTerm) {
  VitConfig config = switched(), plain = switched();
  config.moe.layers = plain.moe.layers = "0,1";
  config.moe.orthogonality = Orthogonality::penalty;
  config.moe.penalty = 10;
  plain.moe.orthogonality = Orthogonality::none;
  TinyModel with(config), without(plain);
  for (TinyModel* tiny : {&with, &without})  // so that a penalty has a gradient
    for (Parameter* p : tiny->trained())
      if (p->name.ends_with("experts.U1")) {
        p->value.data<double>()[0] += 0.3;
        tiny->model.refresh(tiny->bench.ctx);
      }
  const std::vector<TermPurity> a = measure(with), b = measure(without);
  EXPECT_NEAR(*a[0].experts.cosine, *b[0].experts.cosine, 1e-9);
  EXPECT_NEAR(*a[0].experts.norm_ratio, *b[0].experts.norm_ratio, 1e-9);
}

/// Parameters and statistics after ten steps with noise and dropout, some measured.
std::map<std::string, std::vector<double>> train(int64_t measure_every, bool statistics) {
  VitConfig config = tiny_config();
  config.dropout = 0.2;
  config.drop_path = 0.2;
  config.moe.router = statistics ? RouterKind::ermoe : RouterKind::vmoe;
  config.moe.extra_balance = 0.1;
  config.moe.group_images = 2;
  TinyModel tiny(config);
  ExecContext ctx = tiny.bench.ctx;
  ctx.mode = Mode::train;
  ctx.rng = RngKey{8};
  const OptimConfig optim;
  Optimizer optimizer(ctx, tiny.model.arena(), optim, StiefelMethod::newton_schulz);
  TrainStep step(ctx, tiny.model, optimizer, nullptr, 1.0);
  const auto loss = [&](const ExecContext& c, const Variable& logits, const Tensor& to) { return tiny.loss_of(c, logits, to); };
  RecordedStep recorded(step, nullptr, loss);
  for (int64_t i = 0; i < 10; ++i) {
    if (measure_every > 0 && i % measure_every == 0) {
      EXPECT_FALSE(measure_purity(ctx, tiny.model, batch_of(tiny), loss, i).empty());
    }
    const StepReport report = recorded.run(
        ctx, 1, [&](int64_t) { return batch_of(tiny); }, 1e-2);
    EXPECT_TRUE(report.accepted);
  }
  std::map<std::string, std::vector<double>> after;
  for (const auto& [name, value] : tiny.values()) after[name] = to_doubles(value);
  return after;
}

TEST(Purity, LeavesNoTraceInTraining) {
  for (const bool statistics : {true, false}) EXPECT_EQ(train(0, statistics), train(3, statistics));
}

/// Of the very step: the same masks of dropout, the same noise.
TEST(Purity, DrawsWhatTheStepDraws) {
  VitConfig config = switched();
  config.dropout = 0.5;
  TinyModel tiny(config);
  const auto first = measure(tiny, 0), again = measure(tiny, 0), other = measure(tiny, 1);
  EXPECT_EQ(first[0].router.cosine, again[0].router.cosine);
  EXPECT_NE(first[0].router.cosine, other[0].router.cosine);
}

TEST(Purity, ValuesAreNamedByPartAndTerm) {
  const std::vector<TermPurity> terms{{.term = "", .experts = {.cosine = 0.5, .norm_ratio = 2}, .router = {.cosine = {}, .norm_ratio = {}}},
                                      {.term = "z", .experts = {.cosine = -1, .norm_ratio = 3}, .router = {.cosine = 1, .norm_ratio = 4}}};
  const std::vector<std::pair<std::string, double>> values{{"purity_experts", 0.5},  {"purity_ratio_experts", 2},
                                                           {"purity_experts/z", -1}, {"purity_ratio_experts/z", 3},
                                                           {"purity_router/z", 1},   {"purity_ratio_router/z", 4}};
  EXPECT_EQ(purity_values(terms), values);
}

}  // namespace
}  // namespace ermoe::testing
