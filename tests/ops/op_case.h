// One `OpCase` per op and shape makes all of its tests: the float64 gradient check, float32 against float64, adding
// equals overwriting plus a sum, bitwise repeatability; and in a build with CUDA, where there is a GPU: float32 there
// against the CPU, bf16 against float32, adding, repeatability. Every buffer is filled with NaNs before an op gets it.
//
//   OP_CASES(GeluOp, {.name = "ragged", .inputs = {{.shape = {3, 7}}},
//                               .run = [](const ExecContext& ctx, Vars x) { return gelu(ctx, x[0]); }});
#pragma once

#include "autograd/gradcheck.h"
#include "tests/bench.h"
#include "tests/gpu_bench.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <string>
#include <vector>

namespace ermoe::testing {

using Vars = std::span<const Variable>;

struct OpCase {
  std::string name;
  std::vector<OpInput> inputs;
  std::function<Variable(const ExecContext&, Vars)> run;
  double gradient_tolerance = 1e-6;  // relative to the largest gradient of the input
  double f32_tolerance = 1e-9;       // normalised squared error against float64
  double bf16_tolerance = 1e-4;      // of bf16 against float32 on the same rounded inputs: 1 - 2<a,b> / (<a,a> + <b,b>)
};

/// Output and input gradients of one run with a random cotangent.
struct OpRun {
  std::vector<std::vector<double>> tensors;  // y, dx0, dx1, …
};

enum class Inputs { exact, rounded };  // rounded: to what bf16 can hold

template <typename Bench>
OpRun run_op(Bench& bench, const OpCase& op, DType dtype, int uses = 1, Inputs inputs = Inputs::exact) {
  Tape tape;
  const ExecContext ctx = bench.ctx.with_tape(&tape);
  const auto draw = [&](const OpInput& input, DType own, RngKey key) {
    if (inputs == Inputs::exact || own == DType::bf16) return random_input(ctx, input, own, key);
    const Tensor wide = random_input(ctx, input, own, key), rounded = ctx.empty(input.shape, DType::bf16);
    convert(wide, rounded);
    convert(rounded, wide);
    return wide;
  };
  std::vector<Variable> vars;
  for (size_t i = 0; i < op.inputs.size(); ++i) {
    const bool master = op.inputs[i].precision == OpInput::Precision::master;
    vars.push_back(
        tape.leaf(master ? random_input(ctx, op.inputs[i], dtype, RngKey{17}.fold(i)) : draw(op.inputs[i], dtype, RngKey{17}.fold(i))));
  }
  OpRun result;
  Tensor cotangent;
  for (int use = 0; use < uses; ++use) {  // every use adds its gradient to the same leaves
    const Variable y = op.run(ctx, vars);
    if (use == 0) {
      result.tensors.push_back(to_doubles(y.value));
      cotangent = draw({y.shape()}, y.dtype(), RngKey{23});
    }
    tape.backward(ctx, y, cotangent.clone());
  }
  for (const Variable& v : vars) {
    const Tensor grad = tape.grad(v);
    result.tensors.push_back(grad.defined() ? to_doubles(grad) : std::vector<double>());
  }
  return result;
}

inline void expect_gradient_matches_differences(const OpCase& op) {
  TestBench bench;
  std::vector<Tensor> inputs;
  for (size_t i = 0; i < op.inputs.size(); ++i) inputs.push_back(random_input(bench.ctx, op.inputs[i], DType::f64, RngKey{5}.fold(i)));
  const GradcheckResult result = gradcheck(bench.ctx, op.run, inputs);
  EXPECT_LE(result.worst, op.gradient_tolerance) << result.where;
}

inline void expect_f32_matches_f64(const OpCase& op) {
  TestBench bench;
  const OpRun low = run_op(bench, op, DType::f32), high = run_op(bench, op, DType::f64);
  for (size_t i = 0; i < high.tensors.size(); ++i)
    EXPECT_LE(normalised_error(low.tensors[i], high.tensors[i]), op.f32_tolerance) << "tensor " << i << " (0: output, then gradients)";
}

inline void expect_adding_equals_sum(const OpCase& op) {
  TestBench bench;
  const OpRun once = run_op(bench, op, DType::f64, 1), twice = run_op(bench, op, DType::f64, 2);
  for (size_t i = 1; i < once.tensors.size(); ++i) {
    std::vector<double> doubled = once.tensors[i];
    for (double& v : doubled) v *= 2;
    EXPECT_LE(normalised_error(twice.tensors[i], doubled), 1e-24) << "input " << i - 1;
  }
}

inline void expect_repeats_bit_for_bit(const OpCase& op) {
  TestBench first, second;
  const OpRun a = run_op(first, op, DType::f32), b = run_op(second, op, DType::f32);
  for (size_t i = 0; i < a.tensors.size(); ++i) {
    const size_t bytes = a.tensors[i].size() * sizeof(double);
    if (bytes == 0) continue;
    EXPECT_EQ(0, std::memcmp(a.tensors[i].data(), b.tensors[i].data(), bytes)) << "tensor " << i;
  }
}

#if defined(ERMOE_WITH_CUDA)
inline void expect_gpu_matches_cpu(const OpCase& op) {
  TestBench cpu;
  GpuBench gpu;
  const OpRun want = run_op(cpu, op, DType::f32), got = run_op(gpu, op, DType::f32);
  for (size_t i = 0; i < want.tensors.size(); ++i) {
    ASSERT_EQ(got.tensors[i].size(), want.tensors[i].size());
    EXPECT_LE(normalised_error(got.tensors[i], want.tensors[i]), op.f32_tolerance) << "tensor " << i << " (0: output, then gradients)";
  }
}

inline void expect_gpu_bf16_matches_f32(const OpCase& op) {
  TestBench cpu;
  GpuBench gpu;
  const OpRun want = run_op(cpu, op, DType::f32, 1, Inputs::rounded), got = run_op(gpu, op, DType::bf16);
  for (size_t i = 0; i < want.tensors.size(); ++i)
    EXPECT_LE(dissimilarity(got.tensors[i], want.tensors[i]), op.bf16_tolerance) << "tensor " << i << " (0: output, then gradients)";
}

inline void expect_gpu_adds(const OpCase& op) {
  GpuBench bench;
  const OpRun once = run_op(bench, op, DType::f32, 1), twice = run_op(bench, op, DType::f32, 2);
  for (size_t i = 1; i < once.tensors.size(); ++i) {
    std::vector<double> doubled = once.tensors[i];
    for (double& v : doubled) v *= 2;
    EXPECT_LE(normalised_error(twice.tensors[i], doubled), 1e-12) << "input " << i - 1;
  }
}

inline void expect_gpu_repeats(const OpCase& op) {
  for (DType dtype : {DType::f32, DType::bf16}) {
    GpuBench first, second;
    EXPECT_EQ(run_op(first, op, dtype).tensors, run_op(second, op, dtype).tensors) << name_of(dtype);
  }
}

/// All of these on a case that gradient checks are too slow for.
inline void expect_gpu_agrees(const OpCase& op) {
  SCOPED_TRACE(op.name);
  expect_gpu_matches_cpu(op);
  expect_gpu_bf16_matches_f32(op);
  expect_gpu_adds(op);
  expect_gpu_repeats(op);
}
#endif

inline std::string case_name(const ::testing::TestParamInfo<OpCase>& info) { return info.param.name; }

}  // namespace ermoe::testing

#if defined(ERMOE_WITH_CUDA)
#define OP_CASES_ON_GPU(Suite)                                                                       \
  TEST_P(Suite, GpuMatchesCpu) { ERMOE_NEEDS_GPU(expect_gpu_matches_cpu(GetParam())); }              \
  TEST_P(Suite, GpuBf16MatchesFloat32) { ERMOE_NEEDS_GPU(expect_gpu_bf16_matches_f32(GetParam())); } \
  TEST_P(Suite, GpuAddingEqualsOverwritingPlusSum) { ERMOE_NEEDS_GPU(expect_gpu_adds(GetParam())); } \
  TEST_P(Suite, GpuRepeatsBitForBit) { ERMOE_NEEDS_GPU(expect_gpu_repeats(GetParam())); }
#else
#define OP_CASES_ON_GPU(Suite)
#endif

/// Declares suite `Suite` and runs the four tests on every case.
#define OP_CASES(Suite, ...) OP_CASES_OF(Suite, (std::vector<OpCase>{__VA_ARGS__}))

/// The same for a std::vector<OpCase>.
#define OP_CASES_OF(Suite, cases)                                                                \
  class Suite : public ::testing::TestWithParam<OpCase> {};                                      \
  TEST_P(Suite, GradientMatchesDifferences) { expect_gradient_matches_differences(GetParam()); } \
  TEST_P(Suite, Float32MatchesFloat64) { expect_f32_matches_f64(GetParam()); }                   \
  TEST_P(Suite, AddingEqualsOverwritingPlusSum) { expect_adding_equals_sum(GetParam()); }        \
  TEST_P(Suite, RepeatsBitForBit) { expect_repeats_bit_for_bit(GetParam()); }                    \
  OP_CASES_ON_GPU(Suite)                                                                         \
  INSTANTIATE_TEST_SUITE_P(Op, Suite, ::testing::ValuesIn(cases), case_name)
