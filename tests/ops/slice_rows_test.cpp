#include "ops/slice_rows.h"

#include "tests/ops/op_case.h"

namespace ermoe::testing {
namespace {

OP_CASES(
    SliceRowsOp,
    {.name = "middle", .inputs = {{.shape = {5, 3}}}, .run = [](const ExecContext& ctx, Vars x) { return slice_rows(ctx, x[0], 1, 4); }},
    {.name = "whole_packs",
     .inputs = {{.shape = {6, 16}}},
     .run = [](const ExecContext& ctx, Vars x) { return slice_rows(ctx, x[0], 1, 3); }},
    {.name = "to_the_end",
     .inputs = {{.shape = {5, 2, 8}}},
     .run = [](const ExecContext& ctx, Vars x) { return slice_rows(ctx, x[0], 3, 5); }},
    {.name = "odd_from_the_start",
     .inputs = {{.shape = {7, 19}}},
     .run = [](const ExecContext& ctx, Vars x) { return slice_rows(ctx, x[0], 0, 3); }},
    {.name = "all", .inputs = {{.shape = {2, 2, 3}}}, .run = [](const ExecContext& ctx, Vars x) { return slice_rows(ctx, x[0], 0, 2); }});

TEST(SliceRows, RefusesRowsThatAreNotThere) {
  TestBench bench;
  EXPECT_THROW(slice_rows(bench.ctx, Variable(Tensor::zeros(bench.allocator, {2, 2}, DType::f64)), 1, 3), Error);
}

}  // namespace
}  // namespace ermoe::testing
