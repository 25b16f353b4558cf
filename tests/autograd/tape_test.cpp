// The tape's own tests, on two toy ops: what every autograd gets wrong at least once.
#include "autograd/tape.h"

#include "autograd/gradcheck.h"
#include "autograd/memory/parameter_arena.h"
#include "autograd/recompute.h"
#include "tests/bench.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>

namespace ermoe::testing {
namespace {

struct Add {
  static constexpr const char* name = "add";
  void backward(const ExecContext&, const Tensor& dy, GradWriter& out) const {
    for (size_t i : {0, 1})
      if (out.wants(i)) out.give(i, dy);
  }
};

struct Multiply {
  static constexpr const char* name = "multiply";
  Tensor a, b;
  void backward(const ExecContext&, const Tensor& dy, GradWriter& out) const {
    for (size_t i : {0, 1}) {
      if (!out.wants(i)) continue;
      const auto [dst, mode] = out.into(i);
      const Tensor& other = i == 0 ? b : a;
      for (int64_t k = 0; k < dy.numel(); ++k) {
        const double g = dy.data<double>()[k] * other.data<double>()[k];
        dst.data<double>()[k] = mode == Accumulate::add ? dst.data<double>()[k] + g : g;
      }
    }
  }
};

Variable combine_with(const ExecContext& ctx, const Variable& a, const Variable& b, bool product) {
  Tensor y = ctx.empty(a.shape(), DType::f64);
  for (int64_t i = 0; i < y.numel(); ++i) {
    const double u = a.value.data<double>()[i], v = b.value.data<double>()[i];
    y.data<double>()[i] = product ? u * v : u + v;
  }
  return product ? record(ctx, y, {&a, &b}, Multiply{.a = a.value, .b = b.value}) : record(ctx, y, {&a, &b}, Add{});
}
Variable add(const ExecContext& ctx, const Variable& a, const Variable& b) { return combine_with(ctx, a, b, false); }
Variable mul(const ExecContext& ctx, const Variable& a, const Variable& b) { return combine_with(ctx, a, b, true); }

struct View {
  static constexpr const char* name = "view";
  void backward(const ExecContext&, const Tensor& dy, GradWriter& out) const { out.give(0, dy); }
};

/// Uses a bf16 value as a weight.
struct Weigh {
  static constexpr const char* name = "weigh";
  void backward(const ExecContext&, const Tensor& dy, GradWriter& out) const { convert(dy, out.into_master(0).dst); }
};

class TapeTest : public ::testing::Test {
 protected:
  GradcheckResult check_gradients(const GradcheckFn& fn, size_t inputs) {
    std::vector<Tensor> values;
    for (size_t i = 0; i < inputs; ++i) values.push_back(random_input(bench_.ctx, {Shape{5}}, DType::f64, RngKey{3}.fold(i)));
    return gradcheck(bench_.ctx, fn, values);
  }
  TestBench bench_;
};

TEST_F(TapeTest, AViewOfABf16WeightHandsOnItsGradientInF32) {
  Tape tape;
  const ExecContext ctx = bench_.ctx.with_tape(&tape);
  const Variable weight = tape.leaf(Tensor::zeros(bench_.allocator, {3}, DType::bf16));
  const Variable once = record(ctx, weight.value, {&weight}, View{});
  const Variable twice = record(ctx, once.value, {&once}, View{});
  const Variable y = record(ctx, Tensor::zeros(bench_.allocator, {3}, DType::f32), {&twice}, Weigh{});
  tape.backward(ctx, y, Tensor::from<float>(bench_.allocator, {3}, std::vector<float>{1, 2, 1.0001f}));
  EXPECT_EQ(tape.grad(weight).dtype(), DType::f32);
  EXPECT_EQ(tape.grad(weight).data<float>()[2], 1.0001f);
}

TEST_F(TapeTest, Diamond) {
  const auto fn = [](const ExecContext& ctx, std::span<const Variable> x) { return add(ctx, mul(ctx, x[0], x[1]), mul(ctx, x[0], x[0])); };
  EXPECT_LE(check_gradients(fn, 2).worst, 1e-8);
}

TEST_F(TapeTest, ResidualSharesItsGradientWithoutHarm) {
  const auto fn = [](const ExecContext& ctx, std::span<const Variable> x) {
    const Variable u = add(ctx, x[0], x[1]), v = mul(ctx, x[0], x[2]);
    return add(ctx, add(ctx, u, v), u);
  };
  EXPECT_LE(check_gradients(fn, 3).worst, 1e-8);
}

TEST_F(TapeTest, UnusedBranchHasNoGradient) {
  Tape tape;
  const ExecContext ctx = bench_.ctx.with_tape(&tape);
  const Variable a = tape.leaf(random_input(ctx, {Shape{1}}, DType::f64, RngKey{1}));
  const Variable b = tape.leaf(random_input(ctx, {Shape{1}}, DType::f64, RngKey{2}));
  const Variable unused = mul(ctx, a, b);
  tape.backward(ctx, add(ctx, a, a));
  EXPECT_EQ(tape.grad(a).data<double>()[0], 2.0);
  EXPECT_FALSE(tape.grad(b).defined());
}

TEST_F(TapeTest, SharedParameterAndTwoMicroBatchesAddUp) {
  Parameter p;
  p.name = "p";
  p.shape = {4};
  ParameterArena arena(bench_.allocator, DType::f64, {&p});
  for (int64_t i = 0; i < 4; ++i) p.value.data<double>()[i] = static_cast<double>(i) - 1.5;
  const auto backward_of = [&](const std::vector<uint64_t>& batches) {
    arena.begin_gradients();
    for (uint64_t seed : batches) {
      Tape tape;
      const ExecContext ctx = bench_.ctx.with_tape(&tape);
      const Variable x(random_input(ctx, {Shape{4}}, DType::f64, RngKey{seed}));
      const Variable y = mul(ctx, mul(ctx, p, x), p);  // used twice in one graph
      tape.backward(ctx, y, random_input(ctx, {Shape{4}}, DType::f64, RngKey{9}));
    }
    return to_doubles(p.grad);
  };
  const auto first = backward_of({1}), second = backward_of({2}), both = backward_of({1, 2});
  for (size_t i = 0; i < 4; ++i) EXPECT_DOUBLE_EQ(both[i], first[i] + second[i]);
}

TEST_F(TapeTest, UnwrittenSlotsAreZeroedNotStale) {
  Parameter used, unused;
  used.shape = unused.shape = {3};
  ParameterArena arena(bench_.allocator, DType::f64, {&used, &unused});
  std::ranges::fill(unused.grad.span<double>(), 7.0);
  arena.begin_gradients();
  arena.end_gradients(Parameter::Role::direct);
  for (double g : unused.grad.span<double>()) EXPECT_EQ(g, 0.0);
}

TEST_F(TapeTest, MillionOpChainRunsBackward) {
  CachingAllocator quick{make_host_source()};
  Tape tape;  // after the allocator, which outlives what it gave out
  ExecContext ctx = bench_.ctx.with_tape(&tape);
  ctx.allocator = &quick;
  const Variable x = tape.leaf(Tensor::zeros(quick, {1}, DType::f64));
  Variable y = x;
  for (int i = 0; i < 1'000'000; ++i) y = add(ctx, y, x);
  tape.backward(ctx, y);
  EXPECT_EQ(tape.grad(x).data<double>()[0], 1'000'001.0);
}

TEST_F(TapeTest, RecomputeGivesTheSameBits) {
  const auto block = [](const ExecContext& ctx, std::span<const Variable> x) {
    Tensor noise = ctx.empty(x[0].shape(), DType::f64);
    for (int64_t i = 0; i < noise.numel(); ++i) noise.data<double>()[i] = uniform(ctx.rng, static_cast<uint64_t>(i));
    return mul(ctx, mul(ctx, x[0], Variable(noise)), add(ctx, x[0], x[1]));
  };
  const auto gradient = [&](bool with_recompute) {
    Tape tape;
    const ExecContext ctx = bench_.ctx.with_tape(&tape);
    const Variable a = tape.leaf(random_input(ctx, {Shape{6}}, DType::f64, RngKey{1}));
    const Variable b = tape.leaf(random_input(ctx, {Shape{6}}, DType::f64, RngKey{2}));
    const std::vector<Variable> inputs{a, b};
    const Variable y = with_recompute ? recompute(ctx, block, inputs) : block(ctx, inputs);
    tape.backward(ctx, y, random_input(ctx, {Shape{6}}, DType::f64, RngKey{3}));
    std::vector<double> all = to_doubles(tape.grad(a));
    for (double g : to_doubles(tape.grad(b))) all.push_back(g);
    return all;
  };
  EXPECT_EQ(gradient(false), gradient(true));
}

struct Nothing {
  static constexpr const char* name = "nothing";
  void backward(const ExecContext&, const Tensor& dy, GradWriter& out) const { out.give(0, dy); }
};

TEST_F(TapeTest, HostCostOfAnOpIsUnderAMicrosecond) {
  const int ops = 100'000;
  double best = 1e9;
  for (int attempt = 0; attempt < 5; ++attempt) {
    Tape tape;
    const ExecContext ctx = bench_.ctx.with_tape(&tape);
    Variable y = tape.leaf(Tensor::zeros(bench_.allocator, {1}, DType::f64));
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < ops; ++i) y = record(ctx, y.value, {&y}, Nothing{});
    tape.backward(ctx, y);
    best = std::min(best, std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count() / ops);
  }
  RecordProperty("microseconds_per_op", std::to_string(best));
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "timing means nothing under a sanitizer (" << best << " µs)";
#endif
  EXPECT_LT(best, 1.0);
}

}  // namespace
}  // namespace ermoe::testing
