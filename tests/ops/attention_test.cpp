#include "ops/attention.h"

#include "tests/ops/expect_error.h"
#include "tests/ops/op_case.h"
#include "tests/ops/thread_case.h"

namespace ermoe::testing {
namespace {

std::function<Variable(const ExecContext&, Vars)> attend(int64_t heads, AttentionMask mask) {
  return [=](const ExecContext& ctx, Vars x) { return attention(ctx, x[0], heads, mask); };
}
constexpr auto none = AttentionMask::none;
constexpr auto causal = AttentionMask::causal;

OP_CASES(AttentionOp, {.name = "one_token", .inputs = {{.shape = {2, 1, 9}}}, .run = attend(1, none)},
         {.name = "narrow_heads", .inputs = {{.shape = {2, 7, 30}}}, .run = attend(2, none)},
         {.name = "ragged", .inputs = {{.shape = {3, 17, 63}}}, .run = attend(3, none)},
         {.name = "ragged_causal", .inputs = {{.shape = {3, 17, 63}}}, .run = attend(3, causal)},
         {.name = "wide_head", .inputs = {{.shape = {1, 23, 249}}}, .run = attend(1, none)},
         {.name = "two_query_blocks", .inputs = {{.shape = {1, 101, 24}}}, .run = attend(2, none)},
         {.name = "causal_blocks", .inputs = {{.shape = {2, 53, 24}}}, .run = attend(1, causal)});

/// The textbook formula with whole (T, T) matrices: y (B, T, D) and dqkv (B, T, 3D), in double.
struct Naive {
  int64_t batch, tokens, heads, dh;
  bool is_causal;
  std::vector<double> y, dqkv;

  size_t at(int64_t b, int64_t t, int64_t part, int64_t h, int64_t c) const {
    return static_cast<size_t>(((b * tokens + t) * 3 + part) * heads * dh + h * dh + c);
  }
  size_t out(int64_t b, int64_t t, int64_t h, int64_t c) const { return static_cast<size_t>(((b * tokens + t) * heads + h) * dh + c); }

  void run(const std::vector<double>& qkv, const std::vector<double>& dy) {
    y.assign(qkv.size() / 3, 0);
    dqkv.assign(qkv.size(), 0);
    for (int64_t b = 0; b < batch; ++b)
      for (int64_t h = 0; h < heads; ++h)
        for (int64_t i = 0; i < tokens; ++i) row(qkv, dy, b, h, i);
  }

  void row(const std::vector<double>& qkv, const std::vector<double>& dy, int64_t b, int64_t h, int64_t i) {
    const double scale = 1 / std::sqrt(static_cast<double>(dh));
    const int64_t keys = is_causal ? i + 1 : tokens;
    std::vector<double> p(static_cast<size_t>(keys)), dp(p.size());
    double total = 0, mean = 0;
    for (int64_t j = 0; j < keys; ++j) {
      double s = 0;
      for (int64_t c = 0; c < dh; ++c) s += qkv[at(b, i, 0, h, c)] * qkv[at(b, j, 1, h, c)];
      total += p[static_cast<size_t>(j)] = std::exp(s * scale);
    }
    for (int64_t j = 0; j < keys; ++j) {
      const auto u = static_cast<size_t>(j);
      p[u] /= total;
      for (int64_t c = 0; c < dh; ++c) {
        y[out(b, i, h, c)] += p[u] * qkv[at(b, j, 2, h, c)];
        dqkv[at(b, j, 2, h, c)] += p[u] * dy[out(b, i, h, c)];
        dp[u] += dy[out(b, i, h, c)] * qkv[at(b, j, 2, h, c)];
      }
      mean += p[u] * dp[u];
    }
    for (int64_t j = 0; j < keys; ++j) {
      const double ds = p[static_cast<size_t>(j)] * (dp[static_cast<size_t>(j)] - mean) * scale;
      for (int64_t c = 0; c < dh; ++c) {
        dqkv[at(b, i, 0, h, c)] += ds * qkv[at(b, j, 1, h, c)];
        dqkv[at(b, j, 1, h, c)] += ds * qkv[at(b, i, 0, h, c)];
      }
    }
  }
};

struct Size {
  int64_t batch, tokens, heads, dh;
  AttentionMask mask;
};

class AttentionAgainstNaive : public ::testing::TestWithParam<Size> {};

TEST_P(AttentionAgainstNaive, OutputAndGradient) {
  const Size s = GetParam();
  for (const DType dtype : {DType::f64, DType::f32}) {
    TestBench bench;
    const OpCase op{.name = "", .inputs = {{.shape = {s.batch, s.tokens, 3 * s.heads * s.dh}}}, .run = attend(s.heads, s.mask)};
    const OpRun got = run_op(bench, op, dtype);
    Naive naive{s.batch, s.tokens, s.heads, s.dh, s.mask == causal, {}, {}};
    naive.run(to_doubles(random_input(bench.ctx, op.inputs[0], dtype, RngKey{17}.fold(0))),  // as run_op draws them
              to_doubles(random_input(bench.ctx, {Shape{s.batch, s.tokens, s.heads * s.dh}}, dtype, RngKey{23})));
    const double tolerance = dtype == DType::f64 ? 1e-26 : 1e-11;
    EXPECT_LE(normalised_error(got.tensors[0], naive.y), tolerance);
    EXPECT_LE(normalised_error(got.tensors[1], naive.dqkv), tolerance);
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, AttentionAgainstNaive,
                         ::testing::Values(Size{2, 65, 6, 64, none}, Size{3, 50, 2, 16, none}, Size{2, 77, 4, 32, causal},
                                           Size{1, 197, 2, 20, none}, Size{1, 17, 1, 5, causal}, Size{1, 513, 1, 64, causal},
                                           Size{1, 700, 1, 24, none}));

#if defined(ERMOE_WITH_CUDA)
/// Sizes that take every path on a GPU: heads of each tile, padded heads, odd ones, one block of a head and several.
class AttentionOnGpu : public ::testing::TestWithParam<Size> {};

TEST_P(AttentionOnGpu, AgreesAndRepeats) {
  const Size s = GetParam();
  const OpCase op{.name = "", .inputs = {{.shape = {s.batch, s.tokens, 3 * s.heads * s.dh}}}, .run = attend(s.heads, s.mask)};
  ERMOE_NEEDS_GPU(expect_gpu_matches_cpu(op); expect_gpu_bf16_matches_f32(op); expect_gpu_adds(op); expect_gpu_repeats(op));
}

INSTANTIATE_TEST_SUITE_P(Sizes, AttentionOnGpu,
                         ::testing::Values(Size{3, 197, 6, 64, none}, Size{5, 65, 6, 64, none}, Size{2, 513, 2, 64, none},
                                           Size{1, 2600, 1, 64, none}, Size{2, 1, 3, 64, none}, Size{2, 16, 2, 32, none},
                                           Size{2, 131, 3, 32, causal}, Size{2, 77, 8, 64, causal}, Size{1, 513, 2, 64, causal},
                                           Size{2, 197, 2, 96, none}, Size{1, 130, 2, 96, causal}, Size{2, 197, 2, 128, none},
                                           Size{1, 100, 2, 128, causal}, Size{2, 50, 3, 8, none}, Size{1, 150, 2, 72, causal},
                                           Size{1, 70, 1, 83, none}, Size{1, 65, 2, 200, causal}));

/// Backward takes another path from 129 to 208 tokens, in tiles of 16 and steps of 48.
INSTANTIATE_TEST_SUITE_P(Short, AttentionOnGpu,
                         ::testing::Values(Size{2, 17, 3, 64, none}, Size{2, 17, 2, 32, causal}, Size{3, 48, 2, 64, none},
                                           Size{2, 49, 2, 64, causal}, Size{2, 64, 3, 32, none}, Size{2, 64, 2, 64, causal},
                                           Size{3, 65, 3, 32, causal}, Size{2, 65, 2, 64, causal}, Size{1, 96, 2, 40, none},
                                           Size{2, 113, 2, 24, causal}, Size{2, 128, 2, 64, none}, Size{2, 129, 3, 64, none},
                                           Size{1, 129, 2, 40, causal}, Size{1, 145, 2, 64, none}, Size{2, 197, 3, 64, causal},
                                           Size{2, 197, 2, 32, none}, Size{1, 208, 2, 64, none}, Size{1, 208, 3, 32, causal},
                                           Size{1, 209, 2, 64, none}, Size{1, 255, 2, 64, none}, Size{1, 256, 2, 32, causal},
                                           Size{1, 257, 2, 64, causal}));

struct Step {
  std::vector<double> y, dqkv;
};

/// Of `values` as qkv (1, T, 3 Dh), one head, with themselves as far as they go as the cotangent; `uses` times over.
template <typename Bench>
Step attend_to(Bench& bench, const std::vector<float>& values, int64_t tokens, DType dtype, int uses = 1) {
  Tape tape;
  const ExecContext ctx = bench.ctx.with_tape(&tape);
  const int64_t width = static_cast<int64_t>(values.size()) / tokens / 3;
  const auto tensor = [&](const Shape& shape) {
    const std::span<const float> from(values.data(), static_cast<size_t>(shape.numel()));
    const Tensor wide = Tensor::from(host_memory(), shape, from), narrow = Tensor::empty(host_memory(), shape, dtype);
    convert(wide, narrow);
    return to_device(ctx, narrow);
  };
  const Variable qkv = tape.leaf(tensor({1, tokens, 3 * width}));
  Step step;
  for (int use = 0; use < uses; ++use) {
    const Variable y = attention(ctx, qkv, 1);
    if (use == 0) step.y = to_doubles(y.value);
    tape.backward(ctx, y, tensor({1, tokens, width}));
  }
  step.dqkv = to_doubles(tape.grad(qkv));
  return step;
}

/// Values that bf16 holds.
std::vector<float> eighths(size_t count) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = 0.125f * (static_cast<float>(i * 7 % 23) - 11);
  return values;
}

/// With every score near -150, e^(0 - lse) is infinite: what a key beyond the last would weigh.
void expect_no_key_beyond_the_last(int64_t tokens) {
  const size_t width = 64;
  std::vector<float> values = eighths(static_cast<size_t>(tokens) * 3 * width);
  for (size_t i = 0; i < values.size(); ++i)
    if (const size_t part = i / width % 3; part < 2) values[i] += part == 0 ? 4.25f : -4.25f;
  GpuBench gpu;
  TestBench cpu;
  const Step got = attend_to(gpu, values, tokens, DType::bf16), want = attend_to(cpu, values, tokens, DType::f32);
  EXPECT_LE(dissimilarity(got.y, want.y), 1e-4) << tokens;
  for (size_t part = 0; part < 3; ++part) {
    std::vector<double> a, b;
    for (size_t i = 0; i < values.size(); ++i)
      if (i / width % 3 == part) a.push_back(got.dqkv[i]), b.push_back(want.dqkv[i]);
    EXPECT_TRUE(std::all_of(a.begin(), a.end(), [](double x) { return std::isfinite(x); })) << tokens;
    if (part == 2) {
      EXPECT_LE(dissimilarity(a, b), 1e-4) << tokens;
    }
  }
}

/// Adding a bf16 gradient to itself is exact.
void expect_adding_doubles(int64_t tokens) {
  const std::vector<float> values = eighths(static_cast<size_t>(tokens) * 3 * 64);
  GpuBench first, second;
  std::vector<double> once = attend_to(first, values, tokens, DType::bf16).dqkv;
  for (double& x : once) x *= 2;
  EXPECT_EQ(attend_to(second, values, tokens, DType::bf16, 2).dqkv, once) << tokens;
}

TEST(AttentionGpu, KeysBeyondTheLastAddNothing) {
  ERMOE_NEEDS_GPU(for (const int64_t tokens : {5, 65, 197, 250}) expect_no_key_beyond_the_last(tokens));
}
TEST(AttentionGpu, AddsInBf16) { ERMOE_NEEDS_GPU(for (const int64_t tokens : {1, 65, 197, 250}) expect_adding_doubles(tokens)); }
#endif

TEST(Attention, LargeScoresStayFinite) {
  TestBench bench;
  Tensor qkv = random_input(bench.ctx, {Shape{1, 9, 24}}, DType::f32, RngKey{3});
  for (float& v : qkv.span<float>()) v *= 1e4f;
  const Variable y = attention(bench.ctx, Variable(qkv), 2);
  for (const float v : y.value.span<float>()) EXPECT_TRUE(std::isfinite(v));
}

TEST(Attention, CausalIgnoresTheFuture) {
  TestBench bench;
  Tensor qkv = random_input(bench.ctx, {Shape{1, 40, 48}}, DType::f32, RngKey{3});
  const Tensor before = attention(bench.ctx, Variable(qkv), 2, causal).value;
  std::fill_n(qkv.data<float>() + 30 * 48, 10 * 48, 1e3f);
  const Tensor after = attention(bench.ctx, Variable(qkv), 2, causal).value;
  EXPECT_EQ(0, std::memcmp(before.data<float>(), after.data<float>(), 30 * 16 * sizeof(float)));
}

TEST(Attention, BitsDoNotDependOnThreads) {
  expect_same_bits_for_any_threads({.name = "", .inputs = {{.shape = {3, 65, 96}}}, .run = attend(2, none)});
  expect_same_bits_for_any_threads({.name = "", .inputs = {{.shape = {2, 101, 48}}}, .run = attend(1, causal)});
}

TEST(Attention, NeverHoldsAllScores) {
  TestBench bench;
  const int64_t batch = 2, tokens = 2600, heads = 2, dh = 8;
  const size_t all_scores = static_cast<size_t>(batch * heads * tokens * tokens) * sizeof(float);
  const OpCase op{.name = "", .inputs = {{.shape = {batch, tokens, 3 * heads * dh}}}, .run = attend(heads, none)};
  run_op(bench, op, DType::f32);
  EXPECT_LT(bench.allocator.stats().peak, all_scores / 8);
}

TEST(Attention, WrongShapesAreRefused) {
  TestBench bench;
  const auto zeros = [&](const Shape& shape) { return Variable(Tensor::zeros(bench.allocator, shape, DType::f32)); };
  expect_error([&] { attention(bench.ctx, zeros({2, 5, 14}), 1); }, {"[attention]", "(B, T, 3D)", "(2, 5, 14)"});
  expect_error([&] { attention(bench.ctx, zeros({5, 12}), 1); }, {"[attention]", "(5, 12)"});
  expect_error([&] { attention(bench.ctx, zeros({2, 5, 12}), 3); }, {"[attention]", "(2, 5, 12)", "D=4", "3 heads"});
  expect_error([&] { attention(bench.ctx, zeros({2, 5, 12}), 0); }, {"[attention]", "0 heads"});
  expect_error([&] { attention(bench.ctx, Variable(Tensor::zeros(bench.allocator, {1, 1, 3}, DType::i32)), 1); }, {"[attention]", "i32"});
}

}  // namespace
}  // namespace ermoe::testing
