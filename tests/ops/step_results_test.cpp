// What a step gathers on its device: sums by shares, the first fault, a number that goes on.
#include "ops/step_results.h"

#include "tests/gpu_bench.h"

#include <gtest/gtest.h>

namespace ermoe::testing {
namespace {

Tensor number(const ExecContext& ctx, float value) {
  const Tensor t = Tensor::empty(host_memory(), {}, DType::f32);
  *t.data<float>() = value;
  return on_device_of(ctx, t);
}

Tensor flag(const ExecContext& ctx, int32_t value) {
  const Tensor t = Tensor::empty(host_memory(), {1}, DType::i32);
  *t.data<int32_t>() = value;
  return on_device_of(ctx, t);
}

float fault_flag(const ExecContext& ctx, const Tensor& results) {
  const Tensor t = ctx.empty({1}, DType::f32);
  flag_faults(ctx, results, t);
  return item<float>(t);
}

void gathers(const ExecContext& ctx) {
  const Tensor results = make_step_results(ctx, 7);
  for (int step = 0; step < 2; ++step) {
    begin_results(ctx, results);
    add_results(ctx, {.share = 0.25, .loss = number(ctx, 8), .extra = {number(ctx, 4), number(ctx, 2)}, .nonfinite = {}}, results);
    add_results(ctx, {.share = 0.75, .loss = number(ctx, 4), .extra = {}, .nonfinite = {{3, flag(ctx, 0)}}}, results);
    const StepResults host = read_step_results(results);
    EXPECT_EQ(host.loss, 5);
    EXPECT_EQ(host.extra_loss, 1.5);
    EXPECT_EQ(host.fault, 0);
    EXPECT_EQ(host.draws, 7 + 2 * (step + 1));
    EXPECT_EQ(fault_flag(ctx, results), 0);
  }
}

/// More layers than one launch takes, of which two are faulty.
void names_the_first_fault(const ExecContext& ctx) {
  const Tensor results = make_step_results(ctx);
  begin_results(ctx, results);
  MicroBatchResults many{.share = 1, .loss = number(ctx, 1), .extra = {}, .nonfinite = {}};
  for (int64_t block = 0; block < 2 * ResultTerms<float>::most + 3; ++block) {
    many.extra.push_back(number(ctx, 1));
    many.nonfinite.emplace_back(block, flag(ctx, block == 20 || block == 33 ? 1 : 0));
  }
  add_results(ctx, many, results);
  const StepResults host = read_step_results(results);
  EXPECT_EQ(host.fault, 1 + 20);
  EXPECT_EQ(host.extra_loss, 2 * ResultTerms<float>::most + 3);
  EXPECT_EQ(host.loss, 1);
  EXPECT_EQ(host.draws, 1);
  EXPECT_EQ(fault_flag(ctx, results), 1);
}

void a_loss_that_is_not_finite_is_a_fault(const ExecContext& ctx) {
  for (const float loss : {NAN, INFINITY}) {
    const Tensor results = make_step_results(ctx);
    begin_results(ctx, results);
    EXPECT_EQ(fault_flag(ctx, results), 0);
    add_results(ctx, {.share = 1, .loss = number(ctx, loss), .extra = {}, .nonfinite = {}}, results);
    EXPECT_EQ(fault_flag(ctx, results), 1);
    EXPECT_EQ(read_step_results(results).fault, 0);
  }
}

TEST(StepResultsOp, GathersSharesAndCounts) { gathers(TestBench().ctx); }
TEST(StepResultsOp, NamesTheFirstFault) { names_the_first_fault(TestBench().ctx); }
TEST(StepResultsOp, ALossThatIsNotFiniteIsAFault) { a_loss_that_is_not_finite_is_a_fault(TestBench().ctx); }

#if defined(ERMOE_WITH_CUDA)
TEST(StepResultsOp, GpuGathersSharesAndCounts) { ERMOE_NEEDS_GPU(gathers(GpuBench().ctx)); }
TEST(StepResultsOp, GpuNamesTheFirstFault) { ERMOE_NEEDS_GPU(names_the_first_fault(GpuBench().ctx)); }
TEST(StepResultsOp, GpuALossThatIsNotFiniteIsAFault) { ERMOE_NEEDS_GPU(a_loss_that_is_not_finite_is_a_fault(GpuBench().ctx)); }
#endif

}  // namespace
}  // namespace ermoe::testing
