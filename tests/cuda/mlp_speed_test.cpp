// What the dense feed-forward network fuses on a GPU beside the same work apart, in bf16 at the sizes of ViT-S/16 and ViT-B/16,
// and beside the experts' kernels with one expert. Prints the times and fails where fusing loses.
#include "ops/kernels/gelu.h"
#include "ops/kernels/grouped_linear.h"
#include "ops/kernels/linear.h"
#include "tests/cuda/speed.h"

#include <fmt/format.h>

namespace ermoe::testing {
namespace {

struct Sizes {
  const char* name;
  int64_t rows, in, out;
};

double gigabytes(const Sizes& s, double passes) { return 2e-9 * passes * static_cast<double>(s.rows * s.out); }

/// The first layer with its GELU, both ways.
void compare_gelu(const Sizes& z) {
  GpuBench gpu;
  const Stream& s = gpu.ctx.stream;
  const LinearDims up{z.rows, z.in, z.out}, down{z.rows, z.out, z.in};
  const ColumnSumDims sum{z.rows, z.out, z.out};
  const GeluDims all{z.rows * z.out};
  const Tensor x = random_matrix(gpu, z.rows * z.in), w = random_matrix(gpu, z.in * z.out), b = random_matrix(gpu, z.out);
  const Tensor pre = random_matrix(gpu, z.rows * z.out), y = random_matrix(gpu, z.rows * z.out);
  const Tensor db = gpu.ctx.empty({z.out}, DType::f32), scratch = gpu.ctx.empty({sum.partials()}, DType::f32);
  const Tensor starts = Tensor::from<int32_t>(*gpu.ctx.allocator, {2}, std::vector<int32_t>{0, static_cast<int32_t>(z.rows)});
  auto *px = x.data<bf16>(), *pw = w.data<bf16>(), *pb = b.data<bf16>(), *ppre = pre.data<bf16>(), *py = y.data<bf16>();

  const double forward = time_of(gpu, [&] { cuda::gelu_forward(s, all, ppre, py); });
  const double slope = time_of(gpu, [&] { cuda::gelu_backward_sums<bf16>(s, sum, ppre, py, scratch.data<float>(), {db.data<float>()}); });
  const double apart = time_of(gpu, [&] {
    cuda::gelu_backward(s, all, ppre, py, py, Accumulate::overwrite);
    cuda::column_sum(s, sum, py, scratch.data<float>(), db.data<float>(), Accumulate::overwrite);
  });
  fmt::print("{:8} GELU {:.3f} ms {:.0f} GB/s, slope and db together {:.3f} ms {:.0f} GB/s, apart {:.3f} ms\n", z.name, forward,
             1e3 * gigabytes(z, 2) / forward, slope, 1e3 * gigabytes(z, 3) / slope, apart);
  EXPECT_LE(slope, apart) << z.name;

  const double dense_up = time_of(gpu, [&] {
    cuda::linear_forward(s, up, px, pw, pb, ppre);
    cuda::gelu_forward(s, all, ppre, py);
  });
  const double own_up = time_of(gpu, [&] {
    cuda::grouped_linear_gelu_forward<bf16>(s, {z.rows, 1, z.in, z.out}, px, pw, pb, starts.data<int32_t>(), ppre, py);
  });
  const double dense_back = time_of(gpu, [&] {
    cuda::linear_backward_x(s, down, px, pw, py, Accumulate::overwrite);
    cuda::gelu_backward_sums<bf16>(s, sum, ppre, py, scratch.data<float>(), {db.data<float>()});
  });
  const double own_back = time_of(gpu, [&] {
    cuda::grouped_linear_gelu_backward_input<bf16>(s, {z.rows, 1, z.out, z.in}, pw, starts.data<int32_t>(), px, ppre, py);
    cuda::column_sum(s, sum, py, scratch.data<float>(), db.data<float>(), Accumulate::overwrite);
  });
  fmt::print("{:8} first layer and GELU {:.3f} ms, by the experts' kernel {:.3f} ms; back to it {:.3f} ms, {:.3f} ms\n", z.name, dense_up,
             own_up, dense_back, own_back);
  EXPECT_LE(dense_up + dense_back, 1.3 * (own_up + own_back)) << z.name;
}

TEST(MlpSpeedOnGpu, FusedIsNotSlowerThanApart) {
  for (const Sizes& z : {Sizes{"s16", 50432, 384, 1536}, Sizes{"b16", 25216, 768, 3072}}) ERMOE_NEEDS_GPU(compare_gelu(z));
}

}  // namespace
}  // namespace ermoe::testing
