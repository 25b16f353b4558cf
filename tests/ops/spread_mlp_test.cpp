#include "ops/spread_mlp.h"

#include "ops/grouped_mlp.h"
#include "tests/ops/op_case.h"

#include <numeric>

namespace ermoe::testing {
namespace {

/// Two ranks that hold the same rows and the same experts: what one is sent is what it sends, so one process can play both.
/// tests/ranks lets real ones exchange.
class Mirror final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 2; }
  int local_rank() const override { return 0; }
  void all_reduce(const Tensor&, ReduceOp) override { fail("not here"); }
  void reduce_scatter(const Tensor&, const Tensor&, std::span<const int64_t>) override { fail("not here"); }
  void all_gather(const Tensor&, const Tensor&, std::span<const int64_t>) override { fail("not here"); }
  void broadcast(const Tensor&, int) override { fail("not here"); }
  void all_to_all(const Tensor&, std::span<const int64_t>, const Tensor&, std::span<const int64_t>) override { fail("not here"); }
  void exchange_blocks(const Tensor& send, std::span<const RowBlock> sends, const Tensor& recv,
                       std::span<const RowBlock> receives) override {
    for (int rank = 0; rank < size(); ++rank) {
      std::vector<RowBlock> from, to;
      std::ranges::copy_if(sends, std::back_inserter(from), [&](const RowBlock& b) { return b.rank == rank; });
      std::ranges::copy_if(receives, std::back_inserter(to), [&](const RowBlock& b) { return b.rank == rank; });
      check(from.size() == to.size(), "a mirror shows as many as it sees");
      for (size_t i = 0; i < from.size(); ++i) {
        check(from[i].rows == to[i].rows, "a mirror shows as much as it sees");
        if (from[i].rows > 0)
          copy(send.slice(from[i].begin, from[i].begin + from[i].rows), recv.slice(to[i].begin, to[i].begin + to[i].rows));
      }
    }
  }
  void barrier() override {}
  std::unique_ptr<Communicator> split(int) override { return nullptr; }
};

Mirror& mirror() {
  static Mirror one;
  return one;
}

/// Rows for experts of two ranks, who hold half of them each.
struct Shared {
  std::string name;
  std::vector<int64_t> counts;  // of all experts
  std::vector<int64_t> cuts;    // the held experts that chunks end behind
  int64_t behind = 0;           // rows that nobody is sent, after the others

  int64_t held() const { return std::ssize(counts) / 2; }
  int64_t sent() const { return std::accumulate(counts.begin(), counts.end(), int64_t{0}); }
  int64_t begin(int64_t expert) const { return std::accumulate(counts.begin(), counts.begin() + expert, int64_t{0}); }
};

RowTravel travel_of(const ExecContext& ctx, const Shared& s) {
  RowTravel travel{.chunks = {}, .offsets = {}, .rows = s.sent() + 3, .sent = s.sent()};
  std::vector<int32_t> offsets;
  int64_t came = 0, first = 0;
  for (const int64_t end : s.cuts) {
    RowChunk c{.sends = {}, .receives = {}, .first_row = came, .rows = 0, .first_expert = first, .experts = end - first};
    offsets.push_back(0);
    for (int64_t e = first; e < end; ++e) {
      for (const int rank : {0, 1}) {
        const int64_t expert = rank * s.held() + e, rows = s.counts[static_cast<size_t>(expert)];
        c.sends.push_back({rank, s.begin(expert), rows});
        c.receives.push_back({rank, came, rows});
        came += rows;
      }
      offsets.push_back(static_cast<int32_t>(came - c.first_row));
    }
    c.rows = came - c.first_row;
    first = end;
    travel.chunks.push_back(c);
  }
  travel.offsets = Tensor::from<int32_t>(*ctx.allocator, {std::ssize(offsets)}, offsets);
  return travel;
}

std::vector<Shared> all_shared() {
  return {{"in_one", {3, 4, 2, 5}, {2}},
          {"in_two", {3, 4, 2, 5}, {1, 2}, 4},
          {"in_three_uneven", {3, 0, 2, 5, 1, 4, 7, 2}, {1, 2, 4}},
          {"a_chunk_without_rows", {3, 0, 2, 5, 0, 4}, {1, 2, 3}, 2},
          {"a_chunk_without_experts", {3, 4, 2, 5}, {1, 1, 2}},
          {"one_has_all", {0, 9, 0, 0}, {1, 2}},
          {"nobody_sends", {0, 0, 0, 0}, {1, 2}, 3}};
}

OpCase spread_case(const Shared& s, int64_t in, int64_t hidden, int64_t out) {
  return {.name = s.name,
          .inputs = {{.shape = {s.sent() + s.behind, in}},
                     {.shape = {s.held(), hidden, in}},
                     {.shape = {s.held(), hidden}},
                     {.shape = {s.held(), out, hidden}},
                     {.shape = {s.held(), out}}},
          .run = [s](const ExecContext& ctx, Vars x) {
            return spread_mlp(ctx, mirror(), x[0], {.w1 = x[1], .b1 = x[2], .w2 = x[3], .b2 = x[4]}, travel_of(ctx, s));
          }};
}

std::vector<OpCase> spread_cases() {
  std::vector<OpCase> all;
  for (const Shared& s : all_shared()) {
    all.push_back(spread_case(s, 5, 6, 4));
    all.push_back(spread_case(s, 8, 24, 16));  // rows of 16 bytes, which matrix units want
    all.back().name += "_aligned";
  }
  return all;
}

OP_CASES_OF(SpreadMlpOp, spread_cases());

/// Each row alone, by the expert that it is for.
TEST(SpreadMlp, EachRowComesBackFromItsExpert) {
  TestBench bench;
  for (const Shared& s : all_shared()) {
    SCOPED_TRACE(s.name);
    const OpCase op = spread_case(s, 5, 6, 4);
    std::vector<Variable> in;
    for (size_t i = 0; i < op.inputs.size(); ++i) in.emplace_back(random_input(bench.ctx, op.inputs[i], DType::f64, RngKey{5}.fold(i)));
    const Tensor y = op.run(bench.ctx, in).value;
    int64_t row = 0;
    for (int64_t e = 0; e < std::ssize(s.counts); ++e) {
      const int64_t h = e % s.held();
      const auto of = [&](size_t i) { return Variable(in[i].value.slice(h, h + 1)); };
      for (int64_t n = 0; n < s.counts[static_cast<size_t>(e)]; ++n, ++row) {
        const RoutingPlan plan = make_plan(bench.ctx, ids_in_turn(bench.ctx, {1, 1}, 1, 1), 1);
        const Variable w1 = of(1), b1 = of(2), w2 = of(3), b2 = of(4), one(in[0].value.slice(row, row + 1));
        const auto want = to_doubles(grouped_mlp(bench.ctx, one, {.w1 = w1, .b1 = b1, .w2 = w2, .b2 = b2}, plan).value);
        const auto got = to_doubles(y.slice(row, row + 1));
        for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], 1e-12) << "row " << row;
      }
    }
    for (const double v : to_doubles(y.slice(row, y.shape()[0]))) EXPECT_EQ(v, 0.0);
  }
}

TEST(SpreadMlp, RefusesWhatDoesNotFit) {
  TestBench bench;
  const Shared s = all_shared()[1];
  OpCase op = spread_case(s, 5, 6, 4);
  std::vector<Variable> in;
  for (size_t i = 0; i < op.inputs.size(); ++i) in.emplace_back(random_input(bench.ctx, op.inputs[i], DType::f64, RngKey{5}.fold(i)));
  const auto run = [&](const RowTravel& travel) {
    return spread_mlp(bench.ctx, mirror(), in[0], {.w1 = in[1], .b1 = in[2], .w2 = in[3], .b2 = in[4]}, travel);
  };
  RowTravel small = travel_of(bench.ctx, s), many = small, few = small;
  small.rows = 5;
  many.sent = 100;
  few.chunks.pop_back();
  for (const RowTravel& travel : {small, many, few, RowTravel{}}) EXPECT_THROW(run(travel), Error);
}

}  // namespace
}  // namespace ermoe::testing
