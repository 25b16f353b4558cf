#include "ops/qk_norm.h"

#include "ops/layer_norm.h"
#include "tests/ops/expect_error.h"
#include "tests/ops/op_case.h"
#include "tests/ops/thread_case.h"

namespace ermoe::testing {
namespace {

std::function<Variable(const ExecContext&, Vars)> run(int64_t heads) {
  return [=](const ExecContext& ctx, Vars x) { return qk_norm(ctx, x[0], x[1], x[2], x[3], x[4], heads, 1e-6); };
}

std::vector<OpInput> inputs(int64_t batch, int64_t tokens, int64_t heads, int64_t dh) {
  const OpInput weight{.shape = {dh}};
  return {{.shape = {batch, tokens, 3 * heads * dh}}, weight, weight, weight, weight};
}

OP_CASES(QkNormOp, {.name = "one", .inputs = inputs(1, 1, 1, 2), .run = run(1)},
         {.name = "ragged", .inputs = inputs(2, 5, 3, 7), .run = run(3)}, {.name = "packs", .inputs = inputs(2, 17, 2, 64), .run = run(2)},
         {.name = "wide_head", .inputs = inputs(1, 3, 1, 300), .run = run(1)},
         {.name = "several_chunks", .inputs = inputs(3, 17, 2, 5), .run = run(2)});

TEST(QkNorm, EqualsLayerNormOfEachHead) {
  TestBench bench;
  const int64_t rows = 6, heads = 3, dh = 7;
  const auto shapes = inputs(2, 3, heads, dh);
  std::vector<Variable> x;
  for (size_t i = 0; i < 5; ++i) x.emplace_back(random_input(bench.ctx, shapes[i], DType::f64, RngKey{i}));
  const Tensor y = run(heads)(bench.ctx, x).value;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t h = 0; h < 3 * heads; ++h) {
      const int64_t at = (r * 3 * heads + h) * dh;
      const Variable head(x[0].value.window(at, {1, dh}));
      const Variable expected = h < heads ? layer_norm(bench.ctx, head, x[1], x[2], 1e-6)
                                          : (h < 2 * heads ? layer_norm(bench.ctx, head, x[3], x[4], 1e-6) : head);
      EXPECT_LE(normalised_error(to_doubles(y.window(at, {1, dh})), to_doubles(expected.value)), 1e-28);
    }
}

TEST(QkNorm, BitsDoNotDependOnThreads) { expect_same_bits_for_any_threads({.name = "", .inputs = inputs(7, 65, 3, 16), .run = run(3)}); }

TEST(QkNorm, WrongShapesAreRefused) {
  TestBench bench;
  const auto zeros = [&](const Shape& shape) { return Variable(Tensor::zeros(bench.allocator, shape, DType::f32)); };
  const Variable qkv = zeros({2, 5, 24}), w = zeros({4});
  expect_error([&] { qk_norm(bench.ctx, qkv, w, w, zeros({8}), w, 2, 1e-6); }, {"[qk_norm]", "(2, 5, 24)", "(8)"});
  expect_error([&] { qk_norm(bench.ctx, qkv, w, w, w, Variable(), 2, 1e-6); }, {"[qk_norm]", "(2, 5, 24)"});
  expect_error([&] { qk_norm(bench.ctx, qkv, w, w, w, w, 3, 1e-6); }, {"[qk_norm]", "D=8", "3 heads"});
  expect_error([&] { qk_norm(bench.ctx, zeros({5, 24}), w, w, w, w, 2, 1e-6); }, {"[qk_norm]", "(5, 24)"});
}

}  // namespace
}  // namespace ermoe::testing
