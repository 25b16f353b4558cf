// One `OpCase` per op and shape makes all of its tests: the float64 gradient check, float32 against float64, adding
// equals overwriting plus a sum, bitwise repeatability. Every buffer is filled with NaNs before an op gets it.
//
//   INSTANTIATE_OP_CASES(Gelu, {.name = "ragged", .inputs = {{.shape = {3, 7}}},
//                               .run = [](const ExecContext& ctx, Vars x) { return gelu(ctx, x[0]); }});
#pragma once

#include "autograd/gradcheck.h"
#include "core/context.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <string>
#include <vector>

namespace ermoe::testing {

using Vars = std::span<const Variable>;

/// Everything a test needs to run ops: poisoned memory, a workspace, one rank, a key.
struct TestBench {
  explicit TestBench(uint64_t seed = 1) {
    ctx.allocator = &allocator;
    ctx.workspace = &workspace;
    ctx.comm = &comm;
    ctx.rng = RngKey{seed};
    ctx.mode = Mode::train;
  }
  CachingAllocator allocator{make_host_source(), Fill::poison};
  Workspace workspace{allocator};
  SelfCommunicator comm;
  ExecContext ctx;
};

struct OpInput {
  Shape shape;
  enum class Fill { normal, positive, unit } fill = Fill::normal;  // N(0,1) · 0.5 + |N(0,1)| · uniform [0,1)
};

struct OpCase {
  std::string name;
  std::vector<OpInput> inputs;
  std::function<Variable(const ExecContext&, Vars)> run;
  double gradient_tolerance = 1e-6;  // relative to the largest gradient of the input
  double f32_tolerance = 1e-9;       // normalised squared error against float64
};

inline Tensor random_input(const ExecContext& ctx, const OpInput& input, DType dtype, RngKey key) {
  Tensor t = ctx.empty(input.shape, dtype);
  dispatch_float(dtype, "test", [&](auto tag) {
    using T = decltype(tag);
    for (int64_t i = 0; i < t.numel(); ++i) {
      double v = normal(key, static_cast<uint64_t>(i));
      if (input.fill == OpInput::Fill::positive) v = 0.5 + std::abs(v);
      if (input.fill == OpInput::Fill::unit) v = uniform(key, static_cast<uint64_t>(i));
      t.data<T>()[i] = static_cast<T>(static_cast<float>(v));  // the same numbers in both precisions
    }
  });
  return t;
}

inline std::vector<double> to_doubles(const Tensor& t) {
  std::vector<double> values(static_cast<size_t>(t.numel()));
  dispatch_float(t.dtype(), "test", [&](auto tag) {
    for (int64_t i = 0; i < t.numel(); ++i) values[static_cast<size_t>(i)] = t.data<decltype(tag)>()[i];
  });
  return values;
}

/// Σ(a-b)² / Σb²; infinite where a NaN is found.
inline double normalised_error(const std::vector<double>& a, const std::vector<double>& b) {
  double difference = 0, reference = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i]) || std::isnan(b[i])) return INFINITY;
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    reference += b[i] * b[i];
  }
  return reference > 0 ? difference / reference : difference;
}

/// Output and input gradients of one run with a random cotangent.
struct OpRun {
  std::vector<std::vector<double>> tensors;  // y, dx0, dx1, …
};

inline OpRun run_op(TestBench& bench, const OpCase& op, DType dtype, int uses = 1) {
  Tape tape;
  const ExecContext ctx = bench.ctx.with_tape(&tape);
  std::vector<Variable> vars;
  for (size_t i = 0; i < op.inputs.size(); ++i) vars.push_back(tape.leaf(random_input(ctx, op.inputs[i], dtype, RngKey{17}.fold(i))));
  OpRun result;
  Tensor cotangent;
  for (int use = 0; use < uses; ++use) {  // every use adds its gradient to the same leaves
    const Variable y = op.run(ctx, vars);
    if (use == 0) {
      result.tensors.push_back(to_doubles(y.value));
      cotangent = random_input(ctx, {y.shape()}, dtype, RngKey{23});
    }
    tape.backward(ctx, y, cotangent.clone());
  }
  for (const Variable& v : vars) {
    const Tensor grad = tape.grad(v);
    result.tensors.push_back(grad.defined() ? to_doubles(grad) : std::vector<double>());
  }
  return result;
}

class OpCaseTest : public ::testing::TestWithParam<OpCase> {};

TEST_P(OpCaseTest, GradientMatchesFiniteDifferences) {
  TestBench bench;
  std::vector<Tensor> inputs;
  for (size_t i = 0; i < GetParam().inputs.size(); ++i)
    inputs.push_back(random_input(bench.ctx, GetParam().inputs[i], DType::f64, RngKey{5}.fold(i)));
  const GradcheckResult result = gradcheck(bench.ctx, GetParam().run, inputs);
  EXPECT_LE(result.worst, GetParam().gradient_tolerance) << result.where;
}

TEST_P(OpCaseTest, Float32MatchesFloat64) {
  TestBench bench;
  const OpRun low = run_op(bench, GetParam(), DType::f32), high = run_op(bench, GetParam(), DType::f64);
  for (size_t i = 0; i < high.tensors.size(); ++i)
    EXPECT_LE(normalised_error(low.tensors[i], high.tensors[i]), GetParam().f32_tolerance)
        << (i == 0 ? "output" : "gradient of input ") << (i == 0 ? "" : std::to_string(i - 1));
}

TEST_P(OpCaseTest, AddingEqualsOverwritingPlusSum) {
  TestBench bench;
  const OpRun once = run_op(bench, GetParam(), DType::f64, 1), twice = run_op(bench, GetParam(), DType::f64, 2);
  for (size_t i = 1; i < once.tensors.size(); ++i) {
    std::vector<double> doubled = once.tensors[i];
    for (double& v : doubled) v *= 2;
    EXPECT_LE(normalised_error(twice.tensors[i], doubled), 1e-24) << "input " << i - 1;
  }
}

TEST_P(OpCaseTest, RepeatsBitForBit) {
  TestBench first, second;
  const OpRun a = run_op(first, GetParam(), DType::f32), b = run_op(second, GetParam(), DType::f32);
  for (size_t i = 0; i < a.tensors.size(); ++i)
    EXPECT_EQ(0, std::memcmp(a.tensors[i].data(), b.tensors[i].data(), a.tensors[i].size() * sizeof(double)));
}

inline std::string case_name(const ::testing::TestParamInfo<OpCase>& info) { return info.param.name; }

}  // namespace ermoe::testing

#define INSTANTIATE_OP_CASES(Suite, ...) \
  INSTANTIATE_TEST_SUITE_P(Suite, OpCaseTest, ::testing::ValuesIn(std::vector<OpCase>{__VA_ARGS__}), case_name)
