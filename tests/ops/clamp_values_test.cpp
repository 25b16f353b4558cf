#include "ops/clamp_values.h"

#include "tests/ops/expect_error.h"
#include "tests/ops/op_case.h"

namespace ermoe::testing {
namespace {

template <typename Bench>
void check_bounds(DType dtype) {
  Bench bench;
  for (const int64_t n : {1, 7, 131 * 129}) {
    const Tensor t = random_input(bench.ctx, {Shape{n}}, dtype, RngKey{3});
    const std::vector<double> before = to_doubles(t);
    clamp_values(bench.ctx, t, -0.5, 1);  // bf16 holds both
    const std::vector<double> after = to_doubles(t);
    for (size_t i = 0; i < before.size(); ++i) EXPECT_EQ(after[i], std::min(std::max(before[i], -0.5), 1.0)) << name_of(dtype) << " " << i;
  }
}

TEST(ClampValues, BringsWhatLiesOutsideToTheBounds) {
  check_bounds<TestBench>(DType::f32);
  check_bounds<TestBench>(DType::f64);
}

#if defined(ERMOE_WITH_CUDA)
TEST(ClampValues, GpuBringsWhatLiesOutsideToTheBounds) {
  ERMOE_NEEDS_GPU(check_bounds<GpuBench>(DType::f32));
  check_bounds<GpuBench>(DType::bf16);
}
#endif

TEST(ClampValues, ANotANumberStays) {
  TestBench bench;
  const std::vector<double> values{NAN, INFINITY, -INFINITY};
  const Tensor t = Tensor::from<double>(bench.allocator, {3}, values);
  clamp_values(bench.ctx, t, 0, std::log(100.0));
  EXPECT_TRUE(std::isnan(t.data<double>()[0]));
  EXPECT_EQ(t.data<double>()[1], std::log(100.0));
  EXPECT_EQ(t.data<double>()[2], 0);
}

TEST(ClampValues, BoundsInTheWrongOrderAreRefused) {
  TestBench bench;
  const Tensor t = Tensor::zeros(bench.allocator, {3}, DType::f32);
  expect_error([&] { clamp_values(bench.ctx, t, 1, 0); }, {"[clamp_values]", "1", "0"});
}

}  // namespace
}  // namespace ermoe::testing
