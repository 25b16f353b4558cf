#include "ops/gelu.h"

#include "ops/kernels/gelu.h"
#include "tests/ops/op_case.h"

namespace ermoe::testing {
namespace {

Variable run(const ExecContext& ctx, Vars x) { return gelu(ctx, x[0]); }

OP_CASES(GeluOp, {.name = "one", .inputs = {{.shape = {1}}}, .run = run}, {.name = "ragged", .inputs = {{.shape = {3, 7}}}, .run = run},
         {.name = "large", .inputs = {{.shape = {37, 129}}}, .run = run});

TEST(Gelu, FloatMatchesTheLibraryEverywhere) {
  TestBench bench;
  const int64_t n = 200001;
  Tensor x = bench.ctx.empty({n}, DType::f32);
  for (int64_t i = 0; i < n; ++i) x.data<float>()[i] = -10.0f + 20.0f * static_cast<float>(i) / static_cast<float>(n - 1);
  const Tensor y = gelu(bench.ctx, Variable(x)).value;
  for (int64_t i = 0; i < n; ++i) {
    const double v = x.data<float>()[i];
    ASSERT_NEAR(y.data<float>()[i], 0.5 * v * (1 + std::erf(v / std::sqrt(2.0))), 4e-7 * std::max(1.0, std::abs(v))) << v;
  }
}

template <typename T>
void expect_the_bits_of_both_passes(int64_t n) {
  std::vector<T> x(static_cast<size_t>(n)), dy(x.size()), y(x.size()), dx(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = static_cast<T>(3 * normal(RngKey{1}, i));
    dy[i] = static_cast<T>(normal(RngKey{2}, i));
  }
  cpu::gelu_forward({n}, x.data(), y.data());
  cpu::gelu_backward({n}, x.data(), dy.data(), dx.data(), Accumulate::overwrite);
  cpu::gelu_backward_with_y({n}, x.data(), dy.data());
  EXPECT_EQ(x, dx) << n;
  EXPECT_EQ(dy, y) << n;
}

TEST(Gelu, BackwardWithYGivesTheBitsOfBothPasses) {
  for (const int64_t n : {0, 1, 37, 10007}) {
    expect_the_bits_of_both_passes<float>(n);
    expect_the_bits_of_both_passes<double>(n);
  }
}

}  // namespace
}  // namespace ermoe::testing
