#include "ops/embedding.h"

#include "tests/ops/expect_error.h"
#include "tests/ops/op_case.h"
#include "tests/ops/thread_case.h"

namespace ermoe::testing {
namespace {

/// Ids of shape `shape` that repeat, in no order.
Tensor some_ids(const ExecContext& ctx, const Shape& shape, int64_t rows) {
  std::vector<int32_t> ids(static_cast<size_t>(shape.numel()));
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(uniform_int(RngKey{5}, i, static_cast<uint64_t>(rows)));
  return Tensor::from<int32_t>(*ctx.allocator, shape, ids);
}

Variable run(const ExecContext& ctx, Vars x) { return embedding(ctx, x[0], some_ids(ctx, {3, 5}, x[0].shape()[0])); }
Variable run_many(const ExecContext& ctx, Vars x) { return embedding(ctx, x[0], some_ids(ctx, {301}, x[0].shape()[0])); }

/// One id in every other place, as padding is.
Variable run_padded(const ExecContext& ctx, Vars x) {
  std::vector<int32_t> ids(1001, 3);
  for (size_t i = 0; i < ids.size(); i += 2)
    ids[i] = static_cast<int32_t>(uniform_int(RngKey{6}, i, static_cast<uint64_t>(x[0].shape()[0])));
  return embedding(ctx, x[0], Tensor::from<int32_t>(*ctx.allocator, {1001}, ids));
}
Variable run_none(const ExecContext& ctx, Vars x) { return embedding(ctx, x[0], some_ids(ctx, {0, 5}, 1)); }

OP_CASES(EmbeddingOp, {.name = "one", .inputs = {{.shape = {1, 1}}}, .run = run},
         {.name = "ragged", .inputs = {{.shape = {7, 9}}}, .run = run},
         {.name = "rows_that_nobody_names", .inputs = {{.shape = {40, 3}}}, .run = run},
         {.name = "large", .inputs = {{.shape = {19, 77}}}, .run = run_many},
         {.name = "one_id_everywhere", .inputs = {{.shape = {1, 24}}}, .run = run_many},
         {.name = "padded", .inputs = {{.shape = {97, 40}}}, .run = run_padded},
         {.name = "no_ids", .inputs = {{.shape = {5, 8}}}, .run = run_none});

TEST(Embedding, TakesTheNamedRows) {
  TestBench bench;
  const Tensor table = Tensor::from<float>(bench.allocator, {3, 2}, std::vector<float>{0, 1, 10, 11, 20, 21});
  const Tensor ids = Tensor::from<int32_t>(bench.allocator, {2, 2}, std::vector<int32_t>{2, 0, 2, 1});
  const Variable y = embedding(bench.ctx, Variable(table), ids);
  EXPECT_EQ(y.shape(), (Shape{2, 2, 2}));
  EXPECT_EQ(to_doubles(y.value), (std::vector<double>{20, 21, 0, 1, 20, 21, 10, 11}));
}

TEST(Embedding, BitsDoNotDependOnThreads) {
  expect_same_bits_for_any_threads({.name = "", .inputs = {{.shape = {5, 131}}}, .run = run_many});
}

TEST(Embedding, BadIdsAndShapesAreRefused) {
  TestBench bench;
  const Variable table(Tensor::zeros(bench.allocator, {3, 2}, DType::f32));
  const auto look_up = [&](int32_t id) {
    embedding(bench.ctx, table, Tensor::from<int32_t>(bench.allocator, {1, 2}, std::vector<int32_t>{0, id}));
  };
  expect_error([&] { look_up(3); }, {"[embedding]", "id 3", "(1, 2)", "(3, 2)"});
  expect_error([&] { look_up(-1); }, {"[embedding]", "id -1", "(1, 2)", "(3, 2)"});
  expect_error([&] { embedding(bench.ctx, table, Tensor::zeros(bench.allocator, {4}, DType::i64)); }, {"[embedding]", "(3, 2)", "i64 (4)"});
  expect_error([&] { embedding(bench.ctx, Variable(Tensor::zeros(bench.allocator, {3}, DType::f32)), Tensor()); }, {"[embedding]", "(3)"});
}

}  // namespace
}  // namespace ermoe::testing
