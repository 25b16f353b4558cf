#include "ops/column_sum.h"

#include "tests/ops/op_case.h"

#include <omp.h>

#include <array>

namespace ermoe::testing {
namespace {

#if defined(ERMOE_WITH_CUDA)
TEST(ColumnSum, GpuAgrees) {
  ERMOE_NEEDS_GPU(static_cast<void>(0));
  for (const auto& [rows, cols, stride, first] : std::vector<std::array<int64_t, 4>>{
           {5000, 7, 7, 0}, {3, 9001, 9001, 0}, {20011, 512, 512, 0}, {1237, 513, 600, 3}, {64, 1024, 2048, 1024}, {0, 40, 40, 0}}) {
    TestBench cpu;
    GpuBench gpu;
    for (Accumulate mode : {Accumulate::overwrite, Accumulate::add}) {
      const auto sum = [&, rows = rows, cols = cols, stride = stride, first = first](const ExecContext& ctx) {
        const Tensor x = random_input(ctx, {{rows + 1, stride}}, DType::f32, RngKey{1}),
                     y = random_input(ctx, {{cols}}, DType::f32, RngKey{2});
        column_sum(ctx, {rows, cols, stride}, x, {y, mode}, first);
        return to_doubles(y);
      };
      EXPECT_LE(normalised_error(sum(gpu.ctx), sum(cpu.ctx)), 1e-11) << rows << " x " << cols;
    }
  }
}
#endif

TEST(ColumnSum, BitsDoNotDependOnThreads) {
  TestBench bench;
  const int before = omp_get_max_threads();
  for (const auto& [rows, cols] : std::vector<std::pair<int64_t, int64_t>>{{5000, 7}, {3, 9001}, {1237, 513}}) {
    const Tensor x = random_input(bench.ctx, {Shape{rows, cols}}, DType::f32, RngKey{1});
    std::vector<std::vector<double>> sums;
    for (int threads : {1, 2, 5}) {
      omp_set_num_threads(threads);
      const Tensor y = bench.ctx.empty({cols}, DType::f32);
      column_sum(bench.ctx, {rows, cols, cols}, x, {y, Accumulate::overwrite});
      sums.push_back(to_doubles(y));
    }
    EXPECT_EQ(sums[0], sums[1]);
    EXPECT_EQ(sums[0], sums[2]);
  }
  omp_set_num_threads(before);
}

}  // namespace
}  // namespace ermoe::testing
