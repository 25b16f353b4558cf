#include "ops/output_overlap.h"

#include "tests/ops/expect_error.h"
#include "tests/ops/op_case.h"
#include "tests/ops/padded.h"
#include "tests/ops/routing_fixture.h"

namespace ermoe::testing {
namespace {

OpCase case_of(const Routing& r, int64_t width) {
  return {.name = r.name + "_" + std::to_string(width),
          .inputs = {{.shape = {r.tokens * r.slots, width}}},
          .run = [r](const ExecContext& ctx, Vars x) { return output_overlap(ctx, x[0], plan_of(ctx, r)); }};
}

std::vector<OpCase> cases() {
  std::vector<OpCase> all;
  for (const Routing& r : routings())
    for (int64_t width : {6, 16})  // one by one, and in packs
      if (r.tokens > 0) all.push_back(case_of(r, width));
  all.push_back(case_of({"wide", 61, 2, 8, [](int64_t n, int64_t k) { return static_cast<int32_t>((n * 5 + k * 3) % 8); }}, 392));
  const Routing padded{"padded", 61, 2, 8,
                       [](int64_t n, int64_t k) { return Padded{61}.is_padding(n) ? -1 : static_cast<int32_t>((n * 5 + k * 3) % 8); }};
  all.push_back({.name = "padded", .inputs = {{.shape = {122, 16}}}, .run = [=](const ExecContext& ctx, Vars x) {
                   return output_overlap(ctx, x[0], plan_of(ctx, padded), some_weights(ctx, x[0], 61));
                 }});
  all.push_back(case_of({"five_slots", 9, 5, 6, [](int64_t n, int64_t k) { return static_cast<int32_t>((n + k) % 6); }}, 40));
  return all;
}

OP_CASES_OF(OutputOverlapOp, cases());

const Routing two_of_three{"two_of_three", 2, 3, 3, [](int64_t n, int64_t k) { return n == 0 || k != 1 ? static_cast<int32_t>(k) : -1; }};

double loss_of(TestBench& bench, const Tensor& y) {
  return to_doubles(output_overlap(bench.ctx, Variable(y), plan_of(bench.ctx, two_of_three)).value)[0];
}

/// Rows by expert: expert 0 has both tokens, 1 the first one's, 2 both.
TEST(OutputOverlap, IsTheSumOverOrderedPairs) {
  TestBench bench;
  const Tensor y = Tensor::from<double>(bench.allocator, {6, 2}, std::vector<double>{1, 0, 0, 2, 3, 0, 0, 1, 2, 2, 99, 99});
  // Token 0: (1,0), (3,0), (0,1): only the first two overlap. Token 1: (0,2) and (2,2).
  const double first = 9 / (9 + 1e-6) + 9 / (1 + 1e-6), second = 16 / (8 + 1e-6) + 16 / (4 + 1e-6);
  EXPECT_NEAR(loss_of(bench, y), (first + second) / 2, 1e-14);
}

TEST(OutputOverlap, IsNothingForOrthogonalOutputsAndForNone) {
  TestBench bench;
  EXPECT_EQ(loss_of(bench, Tensor::from<double>(bench.allocator, {6, 3},
                                                std::vector<double>{1, 0, 0, 0, 2, 0, 0, 3, 0, 0, 0, 4, 5, 0, 0, 9, 9, 9})),
            0);
  EXPECT_EQ(loss_of(bench, Tensor::zeros(bench.allocator, {6, 3}, DType::f64)), 0);
}

/// One token of which nothing is to be said: the mean is that of the other.
TEST(OutputOverlap, IsTheMeanOverTokensThatAreNoPadding) {
  TestBench bench;
  const Routing both{"both", 2, 2, 2, [](int64_t, int64_t k) { return static_cast<int32_t>(k); }};
  const Routing one{"one", 2, 2, 2, [](int64_t n, int64_t k) { return n == 0 ? static_cast<int32_t>(k) : -1; }};
  const Tensor y = random_input(bench.ctx, {{4, 3}}, DType::f64, RngKey{1});
  const Tensor weights =
      token_weights(bench.ctx, Tensor::from<uint8_t>(bench.allocator, {2, 1}, std::vector<uint8_t>{1, 0}), 1, DType::f64);
  const auto value = [&](const Routing& r, const Tensor& w) {
    return to_doubles(output_overlap(bench.ctx, Variable(y), plan_of(bench.ctx, r), w).value)[0];
  };
  EXPECT_NEAR(value(one, weights), 2 * value(one, {}), 1e-14 * value(one, weights));
  EXPECT_NE(value(both, weights), value(both, {}));
  expect_error([&] { value(both, Tensor::zeros(bench.allocator, {3}, DType::f64)); }, {"[output_overlap] 2 tokens", "weights f64 (3)"});
}

TEST(OutputOverlap, RefusesRowsOfAnotherPlan) {
  TestBench bench;
  expect_error([&] { loss_of(bench, Tensor::zeros(bench.allocator, {5, 3}, DType::f64)); }, {"[output_overlap] y (5, 3)", "6 rows"});
}

}  // namespace
}  // namespace ermoe::testing
