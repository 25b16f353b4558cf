#include "ops/gelu.h"

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

}  // namespace
}  // namespace ermoe::testing
