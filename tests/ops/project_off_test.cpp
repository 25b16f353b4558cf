#include "ops/project_off.h"

#include "ops/orthogonal_step.h"
#include "tests/gpu_bench.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace ermoe::testing {
namespace {

TEST(ProjectOff, LeavesNothingAlongTheBasisAndTheRestAlone) {
  TestBench bench;
  const int64_t E = 2, D = 5, R = 2, c = 3;
  Tensor basis = Tensor::zeros(bench.allocator, {D, E * R}, DType::f64);  // unit vectors: column j is axis j
  for (int64_t j = 0; j < E * R; ++j) basis.data<double>()[j * E * R + j] = 1;
  const Tensor rest = random_input(bench.ctx, {Shape{E, D, c}}, DType::f64, RngKey{1}), before = rest.clone();
  project_off_basis(bench.ctx, basis, rest);
  for (int64_t e = 0; e < E; ++e)
    for (int64_t d = 0; d < D; ++d)
      for (int64_t k = 0; k < c; ++k) {
        const int64_t i = (e * D + d) * c + k;
        const bool own = d / R == e && d < E * R;
        EXPECT_DOUBLE_EQ(rest.data<double>()[i], own ? 0.0 : before.data<double>()[i]);
      }
}

TEST(ProjectOff, APartIsTheSameAsItsExpertsOfTheWhole) {
  TestBench bench;
  const Tensor basis = random_input(bench.ctx, {Shape{9, 8}}, DType::f64, RngKey{1});  // E 4, R 2
  const Tensor rest = random_input(bench.ctx, {Shape{4, 9, 3}}, DType::f64, RngKey{2}), two = rest.slice(1, 3).clone();
  project_off_basis(bench.ctx, basis, rest);
  project_off_basis(bench.ctx, basis, two, {.first = 1, .experts = 4});
  EXPECT_EQ(to_doubles(two), to_doubles(rest.slice(1, 3)));
}

#if defined(ERMOE_WITH_CUDA)
TEST(ProjectOff, GpuAgrees) {
  ERMOE_NEEDS_GPU(static_cast<void>(0));
  for (const auto& [E, D, R, c] : std::vector<std::array<int64_t, 4>>{
           {2, 5, 2, 3}, {8, 384, 48, 336}, {4, 200, 50, 150}, {2, 129, 64, 17}, {1, 33, 7, 1}, {3, 97, 49, 15}, {3, 30, 4, 0}}) {
    const auto run = [&, E = E, D = D, R = R, c = c](const ExecContext& ctx) {
      const Tensor basis = random_input(ctx, {Shape{D, E * R}}, DType::f32, RngKey{1});
      const Tensor rest = random_input(ctx, {Shape{E, D, c}}, DType::f32, RngKey{2});
      project_off_basis(ctx, basis, rest);
      if (E > 1) project_off_basis(ctx, basis, rest.slice(1, E), {.first = 0, .experts = E});  // other experts' columns
      return to_doubles(rest);
    };
    TestBench cpu;
    GpuBench gpu;
    EXPECT_LE(normalised_error(run(gpu.ctx), run(cpu.ctx)), 1e-11) << D;
    GpuBench again;
    EXPECT_EQ(run(gpu.ctx), run(again.ctx)) << D;
  }
}

TEST(ProjectOff, GpuLeavesNothingAlongAnOrthonormalBasis) {
  ERMOE_NEEDS_GPU(static_cast<void>(0));
  const int64_t E = 4, D = 384, R = 48, c = 336;
  TestBench cpu;
  const Tensor basis = random_input(cpu.ctx, {Shape{D, E * R}}, DType::f32, RngKey{1});
  polar_project(cpu.ctx, basis);
  GpuBench gpu;
  const Tensor rest = random_input(gpu.ctx, {Shape{E, D, c}}, DType::f32, RngKey{2});
  project_off_basis(gpu.ctx, to_device(gpu.ctx, basis), rest);
  const std::vector<double> left = to_doubles(rest), columns = to_doubles(basis);
  double worst = 0;
  for (int64_t e = 0; e < E; ++e)
    for (int64_t r = 0; r < R; ++r)
      for (int64_t k = 0; k < c; k += 37) {  // a sample of the columns
        double along = 0;
        for (int64_t d = 0; d < D; ++d)
          along += columns[static_cast<size_t>(d * E * R + e * R + r)] * left[static_cast<size_t>((e * D + d) * c + k)];
        worst = std::max(worst, std::abs(along));
      }
  EXPECT_LE(worst, 5e-5);  // TF32 would leave ten times that
}
#endif

}  // namespace
}  // namespace ermoe::testing
