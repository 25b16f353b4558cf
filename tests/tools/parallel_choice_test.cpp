// What is said about bytes is what ranks send: sums made by hand, and those of a real step among ranks that are only counted.
#include "tools/parallel_choice.h"

#include "tests/models/tiny_model.h"

#include <gtest/gtest.h>

#include <numeric>

namespace ermoe::testing {
namespace {

/// Rank 0 of ranks that all do what it does: what it would send is counted, and what it would receive is its own.
class CountedRanks final : public Communicator {
 public:
  explicit CountedRanks(int size) : size_(size) {}
  int rank() const override { return 0; }
  int size() const override { return size_; }
  int local_rank() const override { return 0; }
  /// Of gradients: statistics are f64, and verdicts one number.
  void all_reduce(const Tensor& t, ReduceOp) override {
    if (t.dtype() == DType::f32 && t.numel() > 1)
      count(reductions, 2 * t.bytes() * static_cast<size_t>(size_ - 1) / static_cast<size_t>(size_));
  }
  void reduce_scatter(const Tensor& in, const Tensor& out, std::span<const int64_t> rows) override {
    count(reductions, in.bytes() - out.bytes());
    const Tensor own = in.slice(0, rows.empty() ? in.shape()[0] / size_ : rows[0]);
    if (own.numel() > 0 && own.raw() != out.raw()) copy(own, out);
  }
  void all_gather(const Tensor& in, const Tensor& out, std::span<const int64_t> rows) override {
    count(in.dtype() == DType::i32 ? exchanges : gathers, in.bytes() * static_cast<size_t>(size_ - 1));
    int64_t at = 0;
    for (int w = 0; w < size_; ++w) {
      const int64_t n = rows.empty() ? in.shape()[0] : rows[static_cast<size_t>(w)];
      const Tensor part = out.slice(at, at + n), own = in.slice(0, n);
      if (n > 0 && part.raw() != own.raw()) copy(own, part);
      at += n;
    }
  }
  void broadcast(const Tensor&, int) override {}
  void all_to_all(const Tensor& send, std::span<const int64_t> send_rows, const Tensor& recv, std::span<const int64_t>) override {
    const int64_t others = std::reduce(send_rows.begin() + 1, send_rows.end(), int64_t{0});
    count(exchanges, static_cast<size_t>(others * send.shape()[1]) * size_of(send.dtype()));
    zero(recv);
  }
  void barrier() override {}
  std::unique_ptr<Communicator> split(int) override { fail("not asked for"); }

  Traffic reductions, gathers, exchanges;

 private:
  void count(Traffic& traffic, size_t bytes) const {
    if (size_ > 1) traffic += {.bytes = static_cast<double>(bytes), .calls = 1};
  }

  int size_;
};

/// The tiny model's step, of one image a rank.
struct CountedStep {
  CountedStep(const VitConfig& config, int world, int expert_ranks)
      : all(world), experts(expert_ranks), replicas(world / expert_ranks), tiny(config, DType::f32) {
    ExecContext& ctx = tiny.bench.ctx;
    ctx.comm = &all;
    ctx.expert_ranks = &experts;
    ctx.replica_ranks = &replicas;
    tiny.model.move_to(ctx, DType::f32);
    ctx.part = part_of_batch(world, 0, world);
    Optimizer optimizer(ctx, tiny.model.arena(), {}, StiefelMethod::newton_schulz);
    TrainStep step(ctx, tiny.model, optimizer, nullptr, 1.0);
    tiny.model.factors_changed();
    for (CountedRanks* ranks : {&all, &experts, &replicas}) ranks->reductions = ranks->gathers = ranks->exchanges = {};
    step.begin(ctx, 1);
    step.micro_batch(ctx, tiny.images.slice(0, 1),
                     [&](const ExecContext& c, const Variable& y) { return tiny.loss_of(c, y, tiny.targets.slice(0, 1)); });
    const StepReport report = step.finish(ctx, 1e-3);
    EXPECT_TRUE(report.accepted) << report.fault;
  }

  CountedRanks all, experts, replicas;
  TinyModel tiny;
};

RunConfig run_of(const VitConfig& model, int64_t batch) {
  RunConfig config;
  config.model = model;
  config.train.batch = batch;
  return config;
}

void expect_counted(const VitConfig& config, int world, int expert_ranks) {
  SCOPED_TRACE(fmt::format("{} ranks, {} together", world, expert_ranks));
  const CountedStep step(config, world, expert_ranks);
  const SharedSizes sizes = shared_sizes(run_of(config, world), world, DType::f32);
  const ExpertTraffic way = expert_traffic(sizes, world, expert_ranks, Begun::apart);
  EXPECT_DOUBLE_EQ(step.replicas.reductions.bytes + step.experts.reductions.bytes, way.reductions.bytes);
  EXPECT_EQ(step.replicas.reductions.calls + step.experts.reductions.calls, way.reductions.calls);
  EXPECT_DOUBLE_EQ(step.replicas.gathers.bytes + step.experts.gathers.bytes, way.gathers.bytes);
  EXPECT_EQ(step.replicas.gathers.calls + step.experts.gathers.calls, way.gathers.calls);
  EXPECT_EQ(step.experts.exchanges.calls, way.exchanges.calls);
  // Of two ranks each sends the other what does not stay, there and back: the same bytes wherever tokens go. Of more it depends on the
  // load.
  if (expert_ranks <= 2) {
    EXPECT_DOUBLE_EQ(step.experts.exchanges.bytes, way.exchanges.bytes);
  }
  // The rest is in buckets, padded to 64 bytes a parameter and to whole parts.
  const double other = other_traffic(sizes, world).bytes, counted = step.all.reductions.bytes + step.all.gathers.bytes;
  EXPECT_GE(counted, other);
  EXPECT_LT(counted, 1.1 * other);
}

VitConfig even_config() {
  VitConfig config = tiny_config();
  config.moe.hidden = 48;  // no padding of biases
  return config;
}

TEST(ParallelChoice, BytesAreThoseOfARealStep) {
  for (const auto& [world, expert_ranks] : {std::pair(2, 1), std::pair(2, 2), std::pair(4, 1), std::pair(4, 2), std::pair(4, 4)})
    expect_counted(even_config(), world, expert_ranks);
}

TEST(ParallelChoice, BytesOfOtherExpertsAreTooThoseOfARealStep) {
  VitConfig disjoint = even_config(), plain = even_config(), again = even_config();
  disjoint.moe.basis = Basis::disjoint;
  plain.moe.router = RouterKind::linear;
  plain.moe.expert = ExpertKind::plain;
  plain.moe.basis = Basis::untied;
  again.recompute = true;
  for (const VitConfig& config : {disjoint, plain, again})
    for (const int expert_ranks : {1, 2}) expect_counted(config, 2, expert_ranks);
}

/// Two layers of four experts with two matrices of 50 elements each, a basis of 10 and biases of 5.
SharedSizes by_hand() {
  return {.layers = 2,
          .experts = 4,
          .scored_experts = 4,
          .matrix_elements = 100,
          .matrices = 2,
          .basis_elements = 10,
          .direct_elements = 5,
          .other_elements = 1000,
          .width = 8,
          .rows = 60};
}

TEST(ParallelChoice, CountsByHand) {
  const ExpertTraffic each = expert_traffic(by_hand(), 2, 1, Begun::apart);
  EXPECT_DOUBLE_EQ(each.reductions.bytes, 4 * (800 + 80 + 40) / 2);
  EXPECT_DOUBLE_EQ(each.gathers.bytes, 4 * (800 + 80 + 40) / 2);
  EXPECT_DOUBLE_EQ(each.exchanges.bytes, 0);
  EXPECT_EQ(each.reductions.calls, 8);  // two matrices, basis and biases of each layer
  EXPECT_EQ(each.gathers.calls, 8);
  EXPECT_EQ(each.exchanges.calls, 0);
  const ExpertTraffic both = expert_traffic(by_hand(), 2, 2, Begun::apart);
  EXPECT_DOUBLE_EQ(both.reductions.bytes, 4 * 80 / 2);
  EXPECT_DOUBLE_EQ(both.gathers.bytes, 4 * 80 / 2);
  EXPECT_DOUBLE_EQ(both.exchanges.bytes, 2 * (4 * 30 * 8 * 4 + 4 * 4));  // half of the rows, four times; and four counts
  EXPECT_EQ(both.reductions.calls, 2);
  EXPECT_EQ(both.exchanges.calls, 2 * 5);
  const ExpertTraffic pairs = expert_traffic(by_hand(), 4, 2, Begun::apart);
  EXPECT_DOUBLE_EQ(pairs.reductions.bytes, 4 * (800 / 4 + 80 * 3 / 4 + 40 / 4));
  EXPECT_DOUBLE_EQ(other_traffic(by_hand(), 4).bytes, 2 * 4 * 1000 * 3 / 4);
}

TEST(ParallelChoice, CountsBf16Together) {
  SharedSizes sizes = by_hand();
  sizes.compute = sizes.reduction = DType::bf16;
  const ExpertTraffic each = expert_traffic(sizes, 2, 1, Begun::together);
  EXPECT_DOUBLE_EQ(each.reductions.bytes, 800 + 4 * (80 + 40) / 2);
  EXPECT_DOUBLE_EQ(each.gathers.bytes, 800 + 80 + 4 * 40 / 2);
  EXPECT_EQ(each.reductions.calls, 2);
  EXPECT_EQ(each.gathers.calls, 1);
  sizes.reduction = DType::f32;
  EXPECT_DOUBLE_EQ(expert_traffic(sizes, 2, 1, Begun::together).reductions.bytes, 1600 + 4 * (80 + 40) / 2);
}

TEST(ParallelChoice, CountsWhatIsComputedAgain) {
  SharedSizes sizes = by_hand();
  sizes.micro_batches = 2;
  sizes.forward_passes = 2;
  const ExpertTraffic both = expert_traffic(sizes, 2, 2, Begun::apart);
  EXPECT_DOUBLE_EQ(both.exchanges.bytes, 2 * (6 * 30 * 8 * 4 + 4 * 4 * 4));
  EXPECT_EQ(both.exchanges.calls, 2 * (6 * 2 + 4));
}

TEST(ParallelChoice, KnowsSizesOfARun) {
  RunConfig config = run_of(even_config(), 12);
  config.train.accumulate = 3;
  const SharedSizes sizes = shared_sizes(config, 4, DType::bf16);
  EXPECT_EQ(sizes.layers, 1);
  EXPECT_EQ(sizes.experts, 4);
  EXPECT_EQ(sizes.matrix_elements, 2 * 48 * 16);
  EXPECT_EQ(sizes.basis_elements, 4 * 16);
  EXPECT_EQ(sizes.direct_elements, 48 + 16);
  EXPECT_DOUBLE_EQ(sizes.rows, 12 * 5 * 2 / 4);  // five tokens an image, two experts a token
  EXPECT_EQ(sizes.reduction, DType::f32);        // of three micro-batches
  config.train.accumulate = 1;
  EXPECT_EQ(shared_sizes(config, 4, DType::bf16).reduction, DType::bf16);
  config.parallel.reduce = ReduceDtype::f32;
  EXPECT_EQ(shared_sizes(config, 4, DType::bf16).reduction, DType::f32);
}

TEST(ParallelChoice, ChoicesDivideTheRanks) {
  EXPECT_EQ(expert_rank_choices(8, 8), (std::vector<int64_t>{1, 2, 4, 8}));
  EXPECT_EQ(expert_rank_choices(8, 6), (std::vector<int64_t>{1, 2, 4}));
  EXPECT_EQ(expert_rank_choices(6, 4), (std::vector<int64_t>{1, 2, 3}));
  EXPECT_EQ(expert_rank_choices(1, 8), std::vector<int64_t>{1});
}

TEST(ParallelChoice, TheFasterOneIsNamed) {
  const ExpertTraffic each{
      .expert_ranks = 1, .reductions = {.bytes = 100e6, .calls = 10}, .gathers = {.bytes = 45e6, .calls = 5}, .exchanges = {}};
  const ExpertTraffic both{.expert_ranks = 2, .reductions = {}, .gathers = {}, .exchanges = {.bytes = 1.2e9, .calls = 30}};
  Links links{.reduce = {.latency = 1e-5, .rate = 100e9}, .exchange = {.latency = 2e-5, .rate = 200e9}};
  EXPECT_DOUBLE_EQ(predicted_seconds(each, links), 145e6 / 100e9 + 15e-5);
  EXPECT_DOUBLE_EQ(predicted_seconds(both, links), 1.2e9 / 200e9 + 30 * 2e-5);
  const std::string text = describe_choice({each, both}, {.bytes = 12e6, .calls = 2}, links, Overlap::backward_pass);
  EXPECT_NE(text.find("on each rank a step and rank: 145 MB (100 MB beside the backward pass); over 2 ranks: 1.20 GB (tokens"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("other weights: 12.0 MB"), std::string::npos) << text;
  EXPECT_NE(text.find("1.60 ms on each rank, 6.60 ms over 2 ranks"), std::string::npos) << text;
  EXPECT_NE(text.find("on each rank is faster"), std::string::npos) << text;
  EXPECT_EQ(describe_choice({each, both}, {}, links, Overlap::none).find("backward"), std::string::npos);
  links.exchange.rate = 1e12;
  EXPECT_EQ(describe_choice({each, both}, {}, links, Overlap::none).find("over 2 ranks is faster"), std::string::npos);
  links.exchange.latency = 0;
  EXPECT_NE(describe_choice({each, both}, {}, links, Overlap::none).find("over 2 ranks is faster"), std::string::npos);
}

TEST(ParallelChoice, TheFastestIsTaken) {
  const std::vector<TimedChoice> timed{{1, 0.012}, {2, 0.0095}, {4, 0.0095}};
  EXPECT_EQ(fastest_of(timed).expert_ranks, 2);
  const std::string text = describe_timings(timed, 20);
  EXPECT_NE(text.find("over 2 ranks          9.50 ms a step, taken\n"), std::string::npos) << text;
  EXPECT_EQ(text.find("taken"), text.rfind("taken"));
}

}  // namespace
}  // namespace ermoe::testing
