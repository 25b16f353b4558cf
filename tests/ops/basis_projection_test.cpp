#include "ops/basis_projection.h"

#include "tests/ops/score_inputs.h"

namespace ermoe::testing {
namespace {

Variable project(const ExecContext& ctx, Vars x) { return basis_projection(ctx, x[0], x[1], {}).z; }
Variable project_centered(const ExecContext& ctx, Vars x) {
  return basis_projection(ctx, x[0], x[1], mean_of(ctx, x[0].dtype(), x[0].shape()[1], 31)).z;
}

OP_CASES(BasisProjectionOp, {.name = "plain", .inputs = ragged, .run = project},
         {.name = "centered", .inputs = ragged, .run = project_centered},
         {.name = "no_token", .inputs = {{.shape = {0, 7}}, {.shape = {2, 3, 7}}}, .run = project_centered});

#if defined(ERMOE_WITH_CUDA)
TEST(BasisProjection, GpuAgreesOnRouterShapes) {
  ERMOE_NEEDS_GPU(
      expect_gpu_agrees({.name = "router", .inputs = {{.shape = {788, 384}}, {.shape = {8, 48, 384}}}, .run = project_centered}));
}

/// What bf16 tokens around a long mean come to: centred coordinates and the basis' gradient.
struct Centred {
  std::vector<double> z, whole, basis;  // z alone, z + shift, gradient
};

/// `dtype` computes on values that bf16 holds, so that it makes no difference to the inputs.
Centred project_around_long_mean(const ExecContext& outer, DType dtype) {
  const int64_t N = 640, D = 96, E = 3, R = 24;
  Tape tape;
  const ExecContext ctx = outer.with_tape(&tape);
  TestBench host;
  const Tensor mean = random_input(host.ctx, {{D}}, DType::f32, RngKey{1});
  for (float& m : mean.span<float>()) m *= 30;
  const Tensor x = random_input(host.ctx, {{N, D}}, DType::f32, RngKey{2}),
               basis = random_input(host.ctx, {{E, R, D}}, DType::f32, RngKey{3});
  for (int64_t i = 0; i < N * D; ++i) x.data<float>()[i] += mean.data<float>()[i % D];
  const auto rounded = [&](const Tensor& wide) {
    const Tensor narrow = ctx.empty(wide.shape(), DType::bf16), out = ctx.empty(wide.shape(), dtype);
    convert(to_device(ctx, wide), narrow);
    convert(narrow, out);
    return tape.leaf(out);
  };
  const Variable tokens = rounded(x), rows = rounded(basis);
  const auto [z, shift] = basis_projection(ctx, tokens, rows, to_device(ctx, mean));
  tape.backward(ctx, z, rounded(random_input(host.ctx, {{N, E, R}}, DType::f32, RngKey{4})).value);
  Centred result{to_doubles(z.value), to_doubles(z.value), to_doubles(tape.grad(rows))};
  const std::vector<double> rest = shift.defined() ? to_doubles(shift) : std::vector<double>(static_cast<size_t>(E * R));
  for (size_t i = 0; i < result.whole.size(); ++i) result.whole[i] += rest[i % rest.size()];
  return result;
}

TEST(BasisProjection, GpuCentresInBf16WhereTheMeanIsLong) {
  ERMOE_NEEDS_GPU(static_cast<void>(0));
  TestBench cpu;
  GpuBench gpu;
  const Centred want = project_around_long_mean(cpu.ctx, DType::f32), f32 = project_around_long_mean(gpu.ctx, DType::f32);
  const Centred got = project_around_long_mean(gpu.ctx, DType::bf16);
  EXPECT_LE(normalised_error(f32.whole, want.whole), 1e-9);
  EXPECT_LE(normalised_error(f32.basis, want.basis), 1e-9);
  EXPECT_LE(dissimilarity(got.whole, want.whole), 1e-5);
  EXPECT_GT(dissimilarity(got.z, want.z), 1e-5);  // without the shift
  EXPECT_LE(dissimilarity(got.basis, want.basis), 1e-5);
}
#endif

}  // namespace
}  // namespace ermoe::testing
