#include "ops/exchange_rows.h"

#include "tests/ops/op_case.h"

namespace ermoe::testing {
namespace {

/// Two ranks that hold the same: what one is sent is what it sends, so one process can play both. tests/ranks lets real ones exchange.
class Mirror final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 2; }
  int local_rank() const override { return 0; }
  void all_reduce(const Tensor&, ReduceOp) override { fail("not here"); }
  void reduce_scatter(const Tensor&, const Tensor&, std::span<const int64_t>) override { fail("not here"); }
  void all_gather(const Tensor&, const Tensor&, std::span<const int64_t>) override { fail("not here"); }
  void broadcast(const Tensor&, int) override { fail("not here"); }
  void all_to_all(const Tensor& send, std::span<const int64_t> send_rows, const Tensor& recv, std::span<const int64_t> recv_rows) override {
    check(send_rows[1] == recv_rows[1] && send_rows[0] == recv_rows[0], "a mirror shows as many as it sees");
    copy(send, recv);
  }
  void barrier() override {}
  std::unique_ptr<Communicator> split(int) override { return nullptr; }
};

Mirror& mirror() {
  static Mirror one;
  return one;
}

/// Rows 0, 1 and 4 for this rank, the others for the one in the mirror; what comes is put down in another order.
const RowTravel some{.sends = {{0, 0, 2}, {1, 2, 2}, {0, 4, 1}}, .receives = {{1, 0, 2}, {0, 2, 2}, {0, 4, 1}}};

OP_CASES(ExchangeRowsOp,
         {.name = "all_rows",
          .inputs = {{{5, 4}}},
          .run = [](const ExecContext& ctx, Vars x) { return exchange_rows(ctx, mirror(), x[0], some, 5); }},
         {.name = "rows_that_stay_and_rows_of_nobody", .inputs = {{{7, 3}}}, .run = [](const ExecContext& ctx, Vars x) {
            return exchange_rows(ctx, mirror(), x[0], some, 9);
          }});

TEST(ExchangeRows, WhatIsBehindTheReceivedRowsIsZero) {
  TestBench bench;
  const Tensor x = random_input(bench.ctx, {Shape{7, 3}}, DType::f64, RngKey{1});
  const Tensor y = exchange_rows(bench.ctx, mirror(), Variable(x), some, 9).value;
  const auto rows = [](const Tensor& t, int64_t begin, int64_t end) { return to_doubles(t.slice(begin, end)); };
  EXPECT_EQ(rows(y, 0, 2), rows(x, 2, 4));
  EXPECT_EQ(rows(y, 2, 4), rows(x, 0, 2));
  EXPECT_EQ(rows(y, 4, 5), rows(x, 4, 5));
  for (const double v : to_doubles(y.slice(5, 9))) EXPECT_EQ(v, 0.0);
}

TEST(ExchangeRows, RefusesMoreRowsThanThereAre) {
  TestBench bench;
  const Variable x(random_input(bench.ctx, {Shape{4, 3}}, DType::f64, RngKey{1}));
  EXPECT_THROW(exchange_rows(bench.ctx, mirror(), x, some, 9), Error);
  const Variable enough(random_input(bench.ctx, {Shape{5, 3}}, DType::f64, RngKey{1}));
  EXPECT_THROW(exchange_rows(bench.ctx, mirror(), enough, some, 4), Error);
}

}  // namespace
}  // namespace ermoe::testing
