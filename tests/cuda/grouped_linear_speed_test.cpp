// Speed of the grouped GEMMs in bf16 beside cuBLAS on one dense product of the same rows, at the sizes of ViT-S/16 and
// ViT-B/16 experts. Prints TFLOP/s of both and fails where a product falls far behind.
#include "cuda/runtime/stream.h"
#include "ops/kernels/grouped_linear.h"
#include "tests/cuda/speed.h"

#include <fmt/format.h>

#include <cstdlib>
#include <string_view>

namespace ermoe::testing {
namespace {

using cuda::blas_check;

struct Operands {
  int64_t rows = 0, experts = 0, in = 0, out = 0;
  Tensor x, dy, w, b, y, dx, dw, db, offsets;
};

Operands make_operands(GpuBench& gpu, int64_t rows, int64_t E, int64_t I, int64_t O) {
  std::vector<int32_t> offsets(static_cast<size_t>(E) + 1, 0);
  for (int64_t e = 0; e < E; ++e) {  // shares between 0.75 and 1.25 of the mean
    const double before = static_cast<double>(e + 1) / static_cast<double>(E);
    const double swing = e % 2 == 0 && e + 1 < E ? 0.25 / static_cast<double>(E) : 0;
    offsets[static_cast<size_t>(e) + 1] = static_cast<int32_t>(static_cast<double>(rows) * (before - swing));
  }
  offsets.back() = static_cast<int32_t>(rows);
  Operands o;
  o.rows = rows;
  o.experts = E;
  o.in = I;
  o.out = O;
  o.x = random_matrix(gpu, rows * I);
  o.dy = random_matrix(gpu, rows * O);
  o.w = random_matrix(gpu, E * O * I);
  o.b = random_matrix(gpu, E * O);
  o.y = gpu.ctx.empty({rows * O}, DType::bf16);
  o.dx = gpu.ctx.empty({rows * I}, DType::bf16);
  o.dw = gpu.ctx.empty({E * O * I}, DType::f32);
  o.db = gpu.ctx.empty({E * O}, DType::f32);
  o.offsets = Tensor::from<int32_t>(*gpu.ctx.allocator, {E + 1}, offsets);
  return o;
}

/// cuBLAS's handle, as a library's user makes one.
struct BlasHandle {
  explicit BlasHandle(const Stream& stream) {
    blas_check(cublasCreate(&handle), "cublasCreate");
    blas_check(cublasSetStream(handle, cuda::native(stream)), "cublasSetStream");
  }
  ~BlasHandle() { cublasDestroy(handle); }
  BlasHandle(const BlasHandle&) = delete;
  BlasHandle& operator=(const BlasHandle&) = delete;
  cublasHandle_t handle = nullptr;
};

/// The dense product in the column order of BLAS.
void dense(const BlasHandle& blas, bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, const Tensor& a, int64_t lda,
           const Tensor& b, int64_t ldb, const Tensor& c, int64_t ldc) {
  const float one = 1, none = 0;
  const auto operation = [](bool transpose) { return transpose ? CUBLAS_OP_T : CUBLAS_OP_N; };
  blas_check(cublasGemmEx(blas.handle, operation(transpose_a), operation(transpose_b), static_cast<int>(m), static_cast<int>(n),
                          static_cast<int>(k), &one, a.raw(), CUDA_R_16BF, static_cast<int>(lda), b.raw(), CUDA_R_16BF,
                          static_cast<int>(ldb), &none, c.raw(), c.dtype() == DType::f32 ? CUDA_R_32F : CUDA_R_16BF, static_cast<int>(ldc),
                          CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
             "cublasGemmEx");
}

void expect_speed(int64_t in, int64_t out) {
  GpuBench gpu;
  const Operands o = make_operands(gpu, 100864, 8, in, out);
  const Stream& s = gpu.ctx.stream;
  const BlasHandle blas(s);
  const GroupedLinearDims dims{o.rows, o.experts, in, out};
  const auto* starts = o.offsets.data<int32_t>();
  const auto report = [&](const char* name, const std::function<void()>& grouped, const std::function<void()>& library) {
    const double ours = time_of(gpu, grouped), theirs = time_of(gpu, library);
    const double operations = 2e-9 * static_cast<double>(o.rows) * static_cast<double>(in) * static_cast<double>(out);
    fmt::print("{:8} I {:4} O {:4}: {:7.3f} ms {:4.0f} TFLOP/s, cuBLAS dense {:7.3f} ms {:4.0f} TFLOP/s, {:3.0f} %\n", name, in, out, ours,
               operations / ours, theirs, operations / theirs, 100 * theirs / ours);
    EXPECT_GE(theirs / ours, 0.35) << name;
  };
  report(
      "forward",
      [&] { cuda::grouped_linear_forward(s, dims, o.x.data<bf16>(), o.w.data<bf16>(), o.b.data<bf16>(), starts, o.y.data<bf16>()); },
      [&] { dense(blas, true, false, out, o.rows, in, o.w, in, o.x, in, o.y, out); });
  report(
      "input",
      [&] {
        cuda::grouped_linear_backward_input(s, dims, o.w.data<bf16>(), starts, o.dy.data<bf16>(), o.dx.data<bf16>(), Accumulate::overwrite);
      },
      [&] { dense(blas, false, false, in, o.rows, out, o.w, in, o.dy, out, o.dx, in); });
  const auto scratch = gpu.ctx.workspace->borrow<float>(cuda::grouped_linear_backward_scratch(s, dims));
  const auto parameters = [&](auto dw, Destination<float> db) {
    cuda::grouped_linear_backward_weight(s, dims, o.x.data<bf16>(), starts, o.dy.data<bf16>(), dw, db, scratch.data());
  };
  const Tensor narrow = gpu.ctx.empty(o.dw.shape(), DType::bf16);
  const Destination<float> wide{o.dw.data<float>()};
  const Destination<bf16> rounded{narrow.data<bf16>()};
  const auto dense_weight = [&] { dense(blas, false, true, in, out, o.rows, o.x, in, o.dy, out, o.dw, in); };
  report(
      "weight", [&] { parameters(wide, {}); }, dense_weight);
  report(
      "w + bias", [&] { parameters(wide, {o.db.data<float>()}); }, dense_weight);
  report(
      "bf16 w+b", [&] { parameters(rounded, {o.db.data<float>()}); }, dense_weight);
  const double bias = time_of(gpu, [&] { parameters(Destination<float>{}, {o.db.data<float>()}); });
  fmt::print("bias     O {:4}: {:7.3f} ms {:5.0f} GB/s\n", out, bias, 2e-6 * static_cast<double>(o.rows * out) / bias);
  if (in < out) {  // the first layer of an expert
    const Tensor act = gpu.ctx.empty({o.rows * out}, DType::bf16);
    report(
        "+ GELU",
        [&] {
          cuda::grouped_linear_gelu_forward(s, dims, o.x.data<bf16>(), o.w.data<bf16>(), o.b.data<bf16>(), starts, o.y.data<bf16>(),
                                            act.data<bf16>());
        },
        [&] { dense(blas, true, false, out, o.rows, in, o.w, in, o.x, in, o.y, out); });
  } else {
    report(
        "+ GELU'",
        [&] {
          cuda::grouped_linear_gelu_backward_input(s, dims, o.w.data<bf16>(), starts, o.dy.data<bf16>(), o.x.data<bf16>(),
                                                   o.dx.data<bf16>());
        },
        [&] { dense(blas, false, false, in, o.rows, out, o.w, in, o.dy, out, o.dx, in); });
  }
}

TEST(GroupedLinearSpeedOnGpu, KeepsUpWithOneDenseProduct) {
  const char* kernels = std::getenv("ERMOE_GPU_KERNELS");
  if (kernels != nullptr && kernels == std::string_view("ampere")) GTEST_SKIP() << "cuBLAS would still run this GPU's own kernels";
  for (const auto& [in, out] : {std::pair{384, 1536}, std::pair{1536, 384}, std::pair{768, 3072}, std::pair{3072, 768}})
    ERMOE_NEEDS_GPU(expect_speed(in, out));
}

}  // namespace
}  // namespace ermoe::testing
