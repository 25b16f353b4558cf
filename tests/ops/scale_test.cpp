#include "ops/scale.h"

#include "tests/ops/op_case.h"

namespace ermoe::testing {
namespace {

Variable run_scale(const ExecContext& ctx, Vars x) { return scale(ctx, x[0], -1.7); }

OP_CASES(ScaleOp, {.name = "one", .inputs = {{.shape = {1}}}, .run = run_scale},
         {.name = "ragged", .inputs = {{.shape = {3, 7}}}, .run = run_scale},
         {.name = "large", .inputs = {{.shape = {131, 129}}}, .run = run_scale});

}  // namespace
}  // namespace ermoe::testing
