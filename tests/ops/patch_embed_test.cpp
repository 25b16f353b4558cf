#include "ops/patch_embed.h"

#include "autograd/memory/parameter_arena.h"
#include "tests/ops/expect_error.h"
#include "tests/ops/op_case.h"
#include "tests/ops/thread_case.h"

namespace ermoe::testing {
namespace {

Variable embed(const ExecContext& ctx, Vars x) { return patch_embed(ctx, x[0], x[1], x[2]); }
template <int64_t Margin>
Variable embed_overlapping(const ExecContext& ctx, Vars x) {
  return patch_embed(ctx, x[0], x[1], x[2], Margin);
}
Variable extract_3(const ExecContext& ctx, Vars x) { return extract_patches(ctx, x[0], 3); }

OP_CASES(PatchEmbedOp, {.name = "one", .inputs = {{.shape = {1, 1, 1, 1}}, {.shape = {1, 1, 1, 1}}, {.shape = {1}}}, .run = embed},
         {.name = "image", .inputs = {{.shape = {2, 3, 6, 9}}, {.shape = {5, 3, 3, 3}}, {.shape = {5}}}, .run = embed},
         {.name = "volume", .inputs = {{.shape = {2, 1, 4, 6, 2}}, {.shape = {7, 1, 2, 2, 2}}, {.shape = {7}}}, .run = embed},
         {.name = "box", .inputs = {{.shape = {2, 3, 8, 24, 16}}, {.shape = {9, 3, 8, 8, 8}}, {.shape = {9}}}, .run = embed},
         {.name = "large", .inputs = {{.shape = {3, 3, 35, 40}}, {.shape = {17, 3, 5, 5}}, {.shape = {17}}}, .run = embed},
         {.name = "overlapping", .inputs = {{.shape = {2, 3, 6, 9}}, {.shape = {5, 3, 5, 5}}, {.shape = {5}}}, .run = embed_overlapping<1>},
         {.name = "wide_margin",
          .inputs = {{.shape = {2, 1, 4, 6}}, {.shape = {4, 1, 12, 12}}, {.shape = {4}}},
          .run = embed_overlapping<5>},
         {.name = "overlapping_volume",
          .inputs = {{.shape = {2, 2, 4, 6, 2}}, {.shape = {7, 2, 4, 4, 4}}, {.shape = {7}}},
          .run = embed_overlapping<1>});

#if defined(ERMOE_WITH_CUDA)
TEST(PatchEmbed, GpuAgreesOnPatchesOfEveryWidth) {
  const auto image = [](const char* name, int64_t side, int64_t patch) {
    return OpCase{
        .name = name, .inputs = {{.shape = {2, 3, side, 2 * side}}, {.shape = {48, 3, patch, patch}}, {.shape = {48}}}, .run = embed};
  };
  ERMOE_NEEDS_GPU(expect_gpu_agrees(image("patch_16", 64, 16)));
  ERMOE_NEEDS_GPU(expect_gpu_agrees(image("patch_14", 56, 14)));
  ERMOE_NEEDS_GPU(expect_gpu_agrees(image("patch_4", 32, 4)));
  ERMOE_NEEDS_GPU(expect_gpu_agrees({.name = "overlapping",
                                     .inputs = {{.shape = {5, 3, 32, 32}}, {.shape = {48, 3, 8, 8}}, {.shape = {48}}},
                                     .run = embed_overlapping<2>}));
  ERMOE_NEEDS_GPU(expect_gpu_agrees(
      {.name = "volume", .inputs = {{.shape = {1, 1, 32, 16, 48}}, {.shape = {24, 1, 16, 16, 16}}, {.shape = {24}}}, .run = embed}));
}
#endif

/// Of the volume with patches of 2 and a margin of M.
void expect_convolution(int64_t M) {
  TestBench bench;
  const int64_t B = 2, C = 3, X = 4, Y = 6, Z = 2, P = 2, D = 5, side = P + 2 * M;
  const Tensor x = random_input(bench.ctx, {Shape{B, C, X, Y, Z}}, DType::f64, RngKey{1});
  const Tensor w = random_input(bench.ctx, {Shape{D, C, side, side, side}}, DType::f64, RngKey{2});
  const Tensor b = random_input(bench.ctx, {Shape{D}}, DType::f64, RngKey{3});
  const auto y = to_doubles(patch_embed(bench.ctx, Variable(x), Variable(w), Variable(b), M).value);
  const auto at = [](const Tensor& t, int64_t i, int64_t j, int64_t k, int64_t l, int64_t m) {
    const Shape& s = t.shape();
    if (k < 0 || l < 0 || m < 0 || k >= s[2] || l >= s[3] || m >= s[4]) return 0.0;
    return t.data<double>()[(((i * s[1] + j) * s[2] + k) * s[3] + l) * s[4] + m];
  };
  std::vector<double> expected;
  for (int64_t n = 0; n < B; ++n)
    for (int64_t token = 0; token < X * Y * Z / (P * P * P); ++token)
      for (int64_t d = 0; d < D; ++d) {
        const int64_t gz = token % (Z / P), gy = token / (Z / P) % (Y / P), gx = token / (Z / P) / (Y / P);
        double sum = b.data<double>()[d];
        for (int64_t c = 0; c < C; ++c)
          for (int64_t i = 0; i < side * side * side; ++i) {
            const int64_t px = i / (side * side), py = i / side % side, pz = i % side;
            sum += at(x, n, c, gx * P + px - M, gy * P + py - M, gz * P + pz - M) * at(w, d, c, px, py, pz);
          }
        expected.push_back(sum);
      }
  ASSERT_EQ(y.size(), expected.size());
  EXPECT_LE(normalised_error(y, expected), 1e-28);
}

TEST(PatchEmbed, EqualsTheConvolutionByItsDefinition) {
  expect_convolution(0);
  expect_convolution(1);
  expect_convolution(3);
}

TEST(PatchEmbed, WeightGradientLandsInTheParameterItself) {
  TestBench bench;
  Parameter w;
  w.shape = {5, 1, 2, 2};
  ParameterArena arena(bench.allocator, DType::f64, {&w});
  copy(random_input(bench.ctx, {w.shape}, DType::f64, RngKey{1}), w.value);
  const Tensor x = random_input(bench.ctx, {Shape{3, 1, 4, 4}}, DType::f64, RngKey{2});
  const auto gradient = [&](const Variable& weight, Tape& tape) {
    const ExecContext ctx = bench.ctx.with_tape(&tape);
    const Variable y = patch_embed(ctx, Variable(x), weight, Variable());
    tape.backward(ctx, y, random_input(ctx, {y.shape()}, DType::f64, RngKey{3}));
  };
  Tape first, second;
  const Variable leaf = first.leaf(w.value);
  gradient(leaf, first);
  arena.begin_gradients();
  gradient(w, second);
  EXPECT_EQ(to_doubles(w.grad), to_doubles(first.grad(leaf)));
}

TEST(PatchEmbed, BitsDoNotDependOnThreads) {
  const auto overlapping = [](const ExecContext& ctx, Vars x) { return extract_patches(ctx, x[0], 3, 2); };
  expect_same_bits_for_any_threads({.name = "", .inputs = {{.shape = {7, 3, 33, 27}}}, .run = overlapping});
  expect_same_bits_for_any_threads({.name = "", .inputs = {{.shape = {7, 3, 33, 27}}}, .run = extract_3});
}

TEST(PatchEmbed, WrongShapesAreRefused) {
  TestBench bench;
  const auto run = [&](const Shape& images, const Shape& weight) {
    const auto zeros = [&](const Shape& shape) { return Variable(Tensor::zeros(bench.allocator, shape, DType::f32)); };
    patch_embed(bench.ctx, zeros(images), zeros(weight), Variable());
  };
  expect_error([&] { run({2, 3, 8, 9}, {5, 3, 4, 4}); }, {"[patch_embed]", "(2, 3, 8, 9)", "(5, 3, 4, 4)"});
  expect_error([&] { run({2, 3, 8, 8}, {5, 1, 4, 4}); }, {"[patch_embed]", "(2, 3, 8, 8)", "(5, 1, 4, 4)"});
  expect_error([&] { run({2, 3, 8, 8}, {5, 3, 4, 2}); }, {"[patch_embed]", "(2, 3, 8, 8)", "(5, 3, 4, 2)"});
  expect_error([&] { run({2, 3, 8, 8}, {5, 3, 4, 4, 4}); }, {"[patch_embed]", "(2, 3, 8, 8)", "(5, 3, 4, 4, 4)"});
  expect_error([&] { run({3, 8, 8}, {5, 3, 4}); }, {"[patch_embed]", "(3, 8, 8)", "(5, 3, 4)"});
  const Variable image(Tensor::zeros(bench.allocator, {2, 3, 8, 8}, DType::f32)),
      weight(Tensor::zeros(bench.allocator, {5, 3, 4, 4}, DType::f32));
  expect_error([&] { patch_embed(bench.ctx, image, weight, Variable(), 2); }, {"[patch_embed]", "(5, 3, 4, 4)", "margin of 2"});
  expect_error([&] { extract_patches(bench.ctx, image, 4, -1); }, {"[extract_patches]", "margin of -1"});
  expect_error(
      [&] {
        extract_patches(bench.ctx, Variable(Tensor::zeros(bench.allocator, {1, 1, 4, 4}, DType::f32)), 3);
      },
      {"[extract_patches]", "(1, 1, 4, 4)", "3"});
}

}  // namespace
}  // namespace ermoe::testing
