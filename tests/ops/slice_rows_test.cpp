#include "ops/slice_rows.h"

#include "tests/ops/op_case.h"

namespace ermoe::testing {
namespace {

OP_CASES(
    SliceRowsOp,
    {.name = "middle", .inputs = {{.shape = {5, 3}}}, .run = [](const ExecContext& ctx, Vars x) { return slice_rows(ctx, x[0], 1, 4); }},
    {.name = "all", .inputs = {{.shape = {2, 2, 3}}}, .run = [](const ExecContext& ctx, Vars x) { return slice_rows(ctx, x[0], 0, 2); }});

TEST(SliceRows, RefusesRowsThatAreNotThere) {
  TestBench bench;
  EXPECT_THROW(slice_rows(bench.ctx, Variable(Tensor::zeros(bench.allocator, {2, 2}, DType::f64)), 1, 3), Error);
}

}  // namespace
}  // namespace ermoe::testing
