// What the dense feed-forward network fuses on a GPU beside the same work apart, in bf16 at the sizes of ViT-S/16 and ViT-B/16,
// and beside the experts' kernels with one expert. Prints the times and fails where fusing loses.
#include "ops/kernels/gelu.h"
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

/// dW and db of one linear layer.
void compare_parameters(const Sizes& z) {
  GpuBench gpu;
  const Stream& s = gpu.ctx.stream;
  const LinearDims dims{z.rows, z.in, z.out};
  const ColumnSumDims sum{z.rows, z.out, z.out};
  const Tensor x = random_matrix(gpu, z.rows * z.in), dy = random_matrix(gpu, z.rows * z.out);
  const Tensor dw = gpu.ctx.empty({z.out * z.in}, DType::f32), db = gpu.ctx.empty({z.out}, DType::f32);
  const Tensor scratch = gpu.ctx.empty({cuda::linear_backward_scratch(s, dims)}, DType::f32);
  const auto weight = [&] { cuda::linear_backward_w(s, dims, dy.data<bf16>(), x.data<bf16>(), dw.data<float>(), Accumulate::overwrite); };
  const auto bias = [&] { cuda::column_sum(s, sum, dy.data<bf16>(), scratch.data<float>(), db.data<float>(), Accumulate::overwrite); };
  const auto together = [&] {
    cuda::linear_backward_parameters<bf16>(s, dims, dy.data<bf16>(), x.data<bf16>(), {dw.data<float>()}, {db.data<float>()},
                                           scratch.data<float>());
  };
  const double apart = time_of(gpu, [&] { weight(), bias(); }), both = time_of(gpu, together);
  fmt::print("{:8} dW {:.3f} ms, dW and db apart {:.3f} ms, as the layer does it {:.3f} ms\n", z.name, time_of(gpu, weight), apart, both);
  EXPECT_LE(both, 1.05 * apart) << z.name;
}

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
  auto *px = x.data<bf16>(), *pw = w.data<bf16>(), *pb = b.data<bf16>(), *ppre = pre.data<bf16>(), *py = y.data<bf16>();

  const double forward = time_of(gpu, [&] { cuda::gelu_forward(s, all, ppre, py); });
  const double slope =
      time_of(gpu, [&] { cuda::gelu_backward_with_y_and_sums<bf16>(s, sum, ppre, py, scratch.data<float>(), {db.data<float>()}); });
  const double apart = time_of(gpu, [&] {
    cuda::gelu_backward_with_y(s, all, ppre, py);
    cuda::column_sum(s, sum, ppre, scratch.data<float>(), db.data<float>(), Accumulate::overwrite);
  });
  fmt::print("{:8} GELU {:.3f} ms {:.0f} GB/s, slope and db together {:.3f} ms {:.0f} GB/s, apart {:.3f} ms\n", z.name, forward,
             1e3 * gigabytes(z, 2) / forward, slope, 1e3 * gigabytes(z, 4) / slope, apart);
  EXPECT_LE(slope, apart) << z.name;

  const double dense_up = time_of(gpu, [&] {
    cuda::linear_forward(s, up, px, pw, pb, ppre);
    cuda::gelu_forward(s, all, ppre, py);
  });
  const double own_up = time_of(gpu, [&] { cuda::linear_gelu_forward(s, up, px, pw, pb, ppre, py); });
  const double dense_back = time_of(gpu, [&] {
    cuda::linear_backward_x(s, down, px, pw, py, Accumulate::overwrite);
    cuda::gelu_backward_with_y_and_sums<bf16>(s, sum, ppre, py, scratch.data<float>(), {db.data<float>()});
  });
  const double own_back = time_of(gpu, [&] {
    if (cuda::linear_gelu_backward_x(s, down, px, pw, ppre, py))
      return cuda::column_sum(s, sum, ppre, scratch.data<float>(), db.data<float>(), Accumulate::overwrite);
    cuda::linear_backward_x(s, down, px, pw, py, Accumulate::overwrite);
    cuda::gelu_backward_with_y_and_sums<bf16>(s, sum, ppre, py, scratch.data<float>(), {db.data<float>()});
  });
  fmt::print("{:8} first layer and GELU: two steps {:.3f} ms, as the network does it {:.3f} ms; back, with db: {:.3f} ms, {:.3f} ms\n",
             z.name, dense_up, own_up, dense_back, own_back);
  EXPECT_LE(own_up + own_back, 1.05 * (dense_up + dense_back)) << z.name;
}

TEST(MlpSpeedOnGpu, TogetherIsNotSlowerThanApart) {
  for (const Sizes& z : {Sizes{"s16 qkv", 50432, 384, 1152}, Sizes{"s16 proj", 50432, 384, 384}, Sizes{"s16 fc1", 50432, 384, 1536},
                         Sizes{"s16 fc2", 50432, 1536, 384}, Sizes{"b16 qkv", 25216, 768, 2304}, Sizes{"b16 proj", 25216, 768, 768},
                         Sizes{"b16 fc1", 25216, 768, 3072}, Sizes{"b16 fc2", 25216, 3072, 768}})
    ERMOE_NEEDS_GPU(compare_parameters(z));
  for (const Sizes& z : {Sizes{"s16", 50432, 384, 1536}, Sizes{"b16", 25216, 768, 3072}}) ERMOE_NEEDS_GPU(compare_gelu(z));
}

}  // namespace
}  // namespace ermoe::testing
