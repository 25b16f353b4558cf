// Dense layers by the experts' kernels: whether they are taken where they should be, and what adding to a gradient gives.
// That their numbers are right, tests/ops/mlp_test.cpp shows against the CPU.
#include "cuda/kernels/dense_wgmma.h"

#include "tests/cuda/speed.h"

namespace ermoe::testing {
namespace {

void parameters_add_up() {
  GpuBench gpu;
  const Stream& s = gpu.ctx.stream;
  const LinearDims dims{.rows = 4999, .in = 392, .out = 1160};  // ragged against every tile
  const Tensor x = random_matrix(gpu, dims.rows * dims.in), dy = random_matrix(gpu, dims.rows * dims.out);
  const Tensor scratch = gpu.ctx.empty({cuda::dense_wgmma_scratch(s, dims)}, DType::f32);
  const auto gradients = [&](const std::vector<Accumulate>& modes) {
    const Tensor dw = gpu.ctx.empty({dims.out * dims.in}, DType::f32), db = gpu.ctx.empty({dims.out}, DType::f32);  // poisoned
    for (const Accumulate mode : modes) {
      const bool taken = cuda::dense_wgmma_parameters<bf16>(s, dims, x.data<bf16>(), dy.data<bf16>(), {dw.data<float>(), mode},
                                                            {db.data<float>(), mode}, scratch.data<float>());
      EXPECT_EQ(taken, is_hopper(gpu));
      if (!taken) return std::vector<double>();
    }
    std::vector<double> all = to_doubles(on_host(gpu.ctx, dw));
    const std::vector<double> bias = to_doubles(on_host(gpu.ctx, db));
    all.insert(all.end(), bias.begin(), bias.end());
    return all;
  };
  const auto once = gradients({Accumulate::overwrite}), again = gradients({Accumulate::overwrite}),
             twice = gradients({Accumulate::overwrite, Accumulate::add});
  EXPECT_EQ(once, again);
  for (size_t i = 0; i < once.size(); ++i) ASSERT_EQ(twice[i], 2 * once[i]) << i;  // exact: doubling rounds nothing
  const auto rows = to_doubles(on_host(gpu.ctx, dy));
  for (int64_t c = 0; c < (once.empty() ? 0 : dims.out); c += 97) {
    double sum = 0, size = 0;
    for (int64_t r = 0; r < dims.rows; ++r) {
      sum += rows[static_cast<size_t>(r * dims.out + c)];
      size += std::abs(rows[static_cast<size_t>(r * dims.out + c)]);
    }
    EXPECT_NEAR(once[static_cast<size_t>(dims.out * dims.in + c)], sum, 1e-6 * size) << "db " << c;
  }
}

TEST(DenseWgmmaOnGpu, ParametersAddUpAndRepeat) { ERMOE_NEEDS_GPU(parameters_add_up()); }

void takes_gelu_on_hopper() {
  GpuBench gpu;
  const Stream& s = gpu.ctx.stream;
  const LinearDims up{.rows = 300, .in = 64, .out = 128}, down{.rows = 300, .in = 128, .out = 64};
  const Tensor x = random_matrix(gpu, 300 * 64), w = random_matrix(gpu, 64 * 128), pre = random_matrix(gpu, 300 * 128),
               y = random_matrix(gpu, 300 * 128);
  auto *px = x.data<bf16>(), *pw = w.data<bf16>(), *ppre = pre.data<bf16>(), *py = y.data<bf16>();
  EXPECT_EQ(cuda::dense_wgmma_gelu_forward<bf16>(s, up, px, pw, pw, ppre, py), is_hopper(gpu));
  EXPECT_EQ(cuda::dense_wgmma_gelu_backward<bf16>(s, down, pw, px, ppre, py), is_hopper(gpu));
}

TEST(DenseWgmmaOnGpu, TakesGeluOnHopper) { ERMOE_NEEDS_GPU(takes_gelu_on_hopper()); }

void leaves_small_and_odd_alone() {
  GpuBench gpu;
  const Stream& s = gpu.ctx.stream;
  const Tensor t = random_matrix(gpu, 1 << 20);
  bf16* const p = t.data<bf16>();
  EXPECT_FALSE(cuda::dense_wgmma_gelu_forward<bf16>(s, {.rows = 64, .in = 20, .out = 24}, p, p, p, p, p));  // rows not aligned
  EXPECT_FALSE(cuda::dense_wgmma_gelu_backward<bf16>(s, {.rows = 64, .in = 24, .out = 20}, p, p, p, p));
  EXPECT_EQ(cuda::dense_wgmma_scratch(s, {.rows = 100, .in = 384, .out = 1536}), 0);
  EXPECT_EQ(cuda::dense_wgmma_scratch(s, {.rows = 50000, .in = 384, .out = 384}), 0);
}

TEST(DenseWgmmaOnGpu, LeavesSmallAndOddAlone) { ERMOE_NEEDS_GPU(leaves_small_and_odd_alone()); }

}  // namespace
}  // namespace ermoe::testing
