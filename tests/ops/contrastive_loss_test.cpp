// On one rank; tests/ranks/contrastive.cpp has several.
#include "ops/contrastive_loss.h"

#include "core/safetensors.h"
#include "ops/kernels/contrastive_loss.h"
#include "ops/l2_normalize.h"
#include "tests/ops/expect_error.h"
#include "tests/ops/op_case.h"
#include "tests/ops/pair_reference.h"

namespace ermoe::testing {
namespace {

enum class Loss { contrastive, sigmoid };

Variable unit(const ExecContext& ctx, const Variable& x) { return l2_normalize(ctx, x, 1e-12); }

/// Of features of length 1: image, text, log_scale, bias.
std::function<Variable(const ExecContext&, Vars)> run(Loss loss) {
  return [=](const ExecContext& ctx, Vars x) {
    if (loss == Loss::contrastive) return contrastive_loss(ctx, unit(ctx, x[0]), unit(ctx, x[1]), x[2]);
    return sigmoid_pair_loss(ctx, unit(ctx, x[0]), unit(ctx, x[1]), x[2], x[3]);
  };
}

OpCase op_case(std::string name, Loss loss, int64_t pairs, int64_t width) {
  const OpInput features{.shape = {pairs, width}}, scalar{.shape = {1}, .precision = OpInput::Precision::master};
  OpCase made{.name = std::move(name), .inputs = {features, features, scalar}, .run = run(loss)};
  if (loss == Loss::sigmoid) made.inputs.push_back(scalar);
  return made;
}

OP_CASES(ContrastiveLossOp, op_case("two", Loss::contrastive, 2, 8), op_case("ragged", Loss::contrastive, 5, 33),
         op_case("even", Loss::contrastive, 16, 64), op_case("wide", Loss::contrastive, 37, 129),
         op_case("sigmoid_one", Loss::sigmoid, 1, 8), op_case("sigmoid_ragged", Loss::sigmoid, 7, 33),
         op_case("sigmoid_wide", Loss::sigmoid, 37, 129));

/// Random features of length 1; a text is its image and `noise` times something else.
PairProblem problem_of(int64_t pairs, int64_t width, double scale, double noise = 1) {
  const RngKey key{7};
  PairProblem p{.pairs = pairs, .width = width, .image = {}, .text = {}, .log_scale = std::log(scale), .bias = -1.5};
  for (int64_t i = 0; i < pairs * width; ++i) {
    p.image.push_back(normal(key, static_cast<uint64_t>(i)));
    p.text.push_back(p.image.back() + noise * normal(key.fold(1), static_cast<uint64_t>(i)));
  }
  for (std::vector<double>* x : {&p.image, &p.text})
    for (int64_t i = 0; i < pairs; ++i) {
      double squares = 0;
      double* const row = x->data() + i * width;
      for (int64_t k = 0; k < width; ++k) squares += row[k] * row[k];
      for (int64_t k = 0; k < width; ++k) row[k] /= std::sqrt(squares);
    }
  return p;
}

/// The features as a dtype keeps them.
void round_to(PairProblem& p, DType dtype) {
  for (std::vector<double>* x : {&p.image, &p.text}) {
    const Tensor wide = Tensor::from<double>(host_memory(), {std::ssize(*x)}, *x),
                 narrow = Tensor::empty(host_memory(), wide.shape(), dtype);
    convert(wide, narrow);
    *x = to_doubles(narrow);
  }
}

/// What the op makes of it.
template <typename Bench>
PairAnswer answer_of(Bench& bench, const PairProblem& p, Loss loss, DType dtype) {
  Tape tape;
  const ExecContext ctx = bench.ctx.with_tape(&tape);
  const auto leaf = [&](const std::vector<double>& values, const Shape& shape, DType as) {
    const Tensor wide = Tensor::from<double>(host_memory(), shape, values), t = Tensor::empty(host_memory(), shape, as);
    convert(wide, t);
    return tape.leaf(t.to(*ctx.allocator));
  };
  const Variable image = leaf(p.image, {p.pairs, p.width}, dtype), text = leaf(p.text, {p.pairs, p.width}, dtype);
  const Variable scale = leaf({p.log_scale}, {1}, master_of(dtype)), bias = leaf({p.bias}, {1}, master_of(dtype));
  const Variable y =
      loss == Loss::contrastive ? contrastive_loss(ctx, image, text, scale) : sigmoid_pair_loss(ctx, image, text, scale, bias);
  PairAnswer answer{.loss = to_doubles(y.value)[0], .image = {}, .text = {}};
  tape.backward(ctx, y);
  answer.image = to_doubles(tape.grad(image));
  answer.text = to_doubles(tape.grad(text));
  answer.log_scale = to_doubles(tape.grad(scale))[0];
  if (loss == Loss::sigmoid) answer.bias = to_doubles(tape.grad(bias))[0];
  return answer;
}

PairAnswer reference(const PairProblem& p, Loss loss) {
  PairAnswer answer = loss == Loss::contrastive ? contrastive_reference(p) : sigmoid_pair_reference(p);
  if (loss == Loss::contrastive) answer.bias = 0;  // which it has not
  return answer;
}

void expect_near(const std::vector<double>& got, const std::vector<double>& want, double tolerance, const char* name) {
  ASSERT_EQ(got.size(), want.size()) << name;
  double worst = 0, largest = 1e-3;
  for (size_t i = 0; i < got.size(); ++i) {
    worst = std::isnan(got[i]) ? INFINITY : std::max(worst, std::abs(got[i] - want[i]));
    largest = std::max(largest, std::abs(want[i]));
  }
  EXPECT_LE(worst / largest, tolerance) << name;
}

void expect_near(const PairAnswer& got, const PairAnswer& want, double tolerance) {
  expect_near(std::vector{got.loss}, {want.loss}, tolerance, "loss");
  expect_near(got.image, want.image, tolerance, "image");
  expect_near(got.text, want.text, tolerance, "text");
  expect_near(std::vector{got.log_scale}, {want.log_scale}, tolerance, "log_scale");
  expect_near(std::vector{got.bias}, {want.bias}, tolerance, "bias");
}

TEST(ContrastiveLoss, MatchesItsFormula) {
  for (const Loss loss : {Loss::contrastive, Loss::sigmoid})
    for (const int64_t pairs : {1, 5, 16, 61})
      for (const double scale : {1.0, 14.3, 100.0}) {
        TestBench bench;
        SCOPED_TRACE(fmt::format("{} pairs, scale {}, {}", pairs, scale, loss == Loss::sigmoid ? "sigmoid" : "softmax"));
        const PairProblem p = problem_of(pairs, 33, scale);
        expect_near(answer_of(bench, p, loss, DType::f64), reference(p, loss), 1e-10);
      }
}

TEST(ContrastiveLoss, MatchesItsFormulaInSeveralTiles) {
  const int64_t pairs = 2100;
  ASSERT_LT(pair_tile_rows(pairs), pairs);
  ASSERT_NE(pairs % pair_tile_rows(pairs), 0);
  const PairProblem p = problem_of(pairs, 3, 14.3);
  for (const Loss loss : {Loss::contrastive, Loss::sigmoid}) {
    TestBench bench;
    expect_near(answer_of(bench, p, loss, DType::f64), reference(p, loss), 1e-10);
  }
}

/// tests/golden/make_contrastive_golden.py
TEST(ContrastiveLoss, AgreesWithPyTorch) {
  for (int number = 80; number <= 84; ++number) {
    SCOPED_TRACE(number);
    TestBench bench;
    const auto file = SafetensorsFile::open(fmt::format("{}/tests/golden/contrastive/case_{}.safetensors", ERMOE_SOURCE_DIR, number));
    const auto values = [&](const std::string& name) { return to_doubles(file.load(name, bench.allocator, DType::f64)); };
    const PairProblem p{.pairs = file.shape("image")[0],
                        .width = file.shape("image")[1],
                        .image = values("image"),
                        .text = values("text"),
                        .log_scale = values("log_scale")[0],
                        .bias = values("bias")[0]};
    for (const Loss loss : {Loss::contrastive, Loss::sigmoid}) {
      const std::string name = loss == Loss::contrastive ? "contrastive" : "sigmoid";
      const PairAnswer want{.loss = values(name)[0],
                            .image = values(name + ".image"),
                            .text = values(name + ".text"),
                            .log_scale = values(name + ".log_scale")[0],
                            .bias = loss == Loss::sigmoid ? values("sigmoid.bias")[0] : 0};
      expect_near(answer_of(bench, p, loss, DType::f64), want, 1e-9);
      expect_near(answer_of(bench, p, loss, DType::f32), want, 2e-5);
    }
  }
}

/// The largest scale that training allows; texts that are their images, and one pair that is turned round.
TEST(ContrastiveLoss, StaysFiniteAtTheLargestScale) {
  for (const Loss loss : {Loss::contrastive, Loss::sigmoid}) {
    TestBench bench;
    PairProblem p = problem_of(64, 32, 100);
    p.text = p.image;
    for (size_t k = 0; k < 32; ++k) p.text[k] = -p.text[k];
    round_to(p, DType::f32);
    const PairAnswer got = answer_of(bench, p, loss, DType::f32);
    EXPECT_TRUE(std::isfinite(got.loss) && std::isfinite(got.log_scale));
    expect_near(got, reference(p, loss), 1e-4);
  }
}

#if defined(ERMOE_WITH_CUDA)
/// Features as they are drawn, which bf16 holds: of those that are brought to length 1 it would keep others than float does, and the
/// scale's gradient of many random pairs is a small difference.
void check_larger_on_gpu() {
  for (const Loss loss : {Loss::contrastive, Loss::sigmoid})
    for (const auto& [pairs, width] : {std::pair{301, 47}, {256, 512}, {1000, 64}}) {
      OpCase larger = op_case(fmt::format("{} pairs", pairs), loss, pairs, width);
      larger.run = [=](const ExecContext& ctx, Vars x) {
        return loss == Loss::contrastive ? contrastive_loss(ctx, x[0], x[1], x[2]) : sigmoid_pair_loss(ctx, x[0], x[1], x[2], x[3]);
      };
      expect_gpu_agrees(larger);
    }
}

TEST(ContrastiveLoss, GpuAgreesWhereDifferencesAreTooSlow) { ERMOE_NEEDS_GPU(check_larger_on_gpu()); }

void check_largest_scale_on_gpu() {
  for (const Loss loss : {Loss::contrastive, Loss::sigmoid})
    for (const DType dtype : {DType::f32, DType::bf16}) {
      SCOPED_TRACE(fmt::format("{} {}", name_of(dtype), loss == Loss::sigmoid ? "sigmoid" : "softmax"));
      GpuBench bench;
      PairProblem p = problem_of(256, 512, 100, 8);  // so that some find others: gradients that are next to nothing are all rounding
      round_to(p, dtype);
      const PairAnswer got = answer_of(bench, p, loss, dtype), want = reference(p, loss);
      // Products of bf16 numbers are exact in float; only slopes and gradients are rounded again.
      expect_near(std::vector{got.loss, got.log_scale, got.bias}, {want.loss, want.log_scale, want.bias}, 1e-4, "scalars");
      EXPECT_LE(dissimilarity(got.image, want.image), dtype == DType::bf16 ? 1e-4 : 1e-8);
      EXPECT_LE(dissimilarity(got.text, want.text), dtype == DType::bf16 ? 1e-4 : 1e-8);
    }
}

TEST(ContrastiveLoss, GpuIsRightAtTheLargestScale) { ERMOE_NEEDS_GPU(check_largest_scale_on_gpu()); }

void check_tiles_on_gpu() {
  const PairProblem p = problem_of(2100, 8, 14.3);
  for (const Loss loss : {Loss::contrastive, Loss::sigmoid}) {
    TestBench cpu;
    GpuBench gpu;
    expect_near(answer_of(gpu, p, loss, DType::f32), answer_of(cpu, p, loss, DType::f32), 1e-4);
  }
}

TEST(ContrastiveLoss, GpuMatchesInSeveralTiles) { ERMOE_NEEDS_GPU(check_tiles_on_gpu()); }
#endif

/// One place for both: the gradients of image and text add up in it.
TEST(ContrastiveLoss, OneVariableMayBeBothSides) {
  TestBench bench;
  const PairProblem p = problem_of(5, 8, 3);
  PairProblem same = p;
  same.text = same.image;
  const PairAnswer want = contrastive_reference(same);
  Tape tape;
  const ExecContext ctx = bench.ctx.with_tape(&tape);
  const Variable x = tape.leaf(Tensor::from<double>(bench.allocator, {5, 8}, p.image));
  const std::vector<double> scale{p.log_scale};
  tape.backward(ctx, contrastive_loss(ctx, x, x, Variable(Tensor::from<double>(bench.allocator, {1}, scale))));
  std::vector<double> sum;
  for (size_t i = 0; i < want.image.size(); ++i) sum.push_back(want.image[i] + want.text[i]);
  expect_near(to_doubles(tape.grad(x)), sum, 1e-12, "both");
}

/// Logits of all pairs would be 64 MB a side.
TEST(ContrastiveLoss, KeepsNoLogits) {
  for (const Loss loss : {Loss::contrastive, Loss::sigmoid}) {
    TestBench bench;
    const Tensor features = random_input(bench.ctx, {Shape{4000, 4}}, DType::f32, RngKey{2});
    const Variable scalar(Tensor::zeros(bench.allocator, {1}, DType::f32));
    for (int time = 0; time < 3; ++time) {  // until the workspace has its size
      Tape tape;
      const ExecContext ctx = bench.ctx.with_tape(&tape);
      const Variable image = tape.leaf(features), text = tape.leaf(features.clone());
      bench.allocator.reset_peak();
      const size_t before = bench.allocator.stats().live;
      const Variable y =
          loss == Loss::contrastive ? contrastive_loss(ctx, image, text, scalar) : sigmoid_pair_loss(ctx, image, text, scalar, scalar);
      const size_t kept = bench.allocator.stats().live - before;
      EXPECT_TRUE(time < 2 || kept < size_t{128} << 10) << kept;
      tape.backward(ctx, y);
    }
    EXPECT_LT(bench.allocator.stats().peak, size_t{40} << 20) << "two tiles of 16 MiB and little else";
  }
}

TEST(ContrastiveLoss, WithoutPairsItIsNothing) {
  TestBench bench;
  Tape tape;
  const ExecContext ctx = bench.ctx.with_tape(&tape);
  const Variable image = tape.leaf(ctx.empty({0, 8}, DType::f64)), scale = tape.leaf(Tensor::zeros(bench.allocator, {1}, DType::f64));
  for (const Variable& y : {contrastive_loss(ctx, image, image, scale), sigmoid_pair_loss(ctx, image, image, scale, scale)}) {
    EXPECT_EQ(y.value.data<double>()[0], 0);
    tape.backward(ctx, y);
    EXPECT_EQ(to_doubles(tape.grad(scale))[0], 0);
  }
}

TEST(ContrastiveLoss, WrongShapesAreRefused) {
  TestBench bench;
  const auto zeros = [&](const Shape& shape, DType dtype = DType::f32) { return Variable(Tensor::zeros(bench.allocator, shape, dtype)); };
  const Variable x = zeros({4, 8}), one = zeros({1});
  expect_error([&] { contrastive_loss(bench.ctx, x, zeros({3, 8}), one); }, {"[contrastive_loss]", "(4, 8)", "(3, 8)"});
  expect_error([&] { contrastive_loss(bench.ctx, x, zeros({4, 8}, DType::f64), one); }, {"[contrastive_loss]", "f32", "f64"});
  expect_error([&] { contrastive_loss(bench.ctx, x, x, zeros({2})); }, {"[contrastive_loss]", "(2)"});
  expect_error([&] { contrastive_loss(bench.ctx, x, x, zeros({1}, DType::f64)); }, {"[contrastive_loss]", "f32", "f64"});
  expect_error([&] { contrastive_loss(bench.ctx, zeros({4, 0}), zeros({4, 0}), one); }, {"[contrastive_loss]", "(4, 0)"});
  expect_error([&] { sigmoid_pair_loss(bench.ctx, x, x, one, Variable()); }, {"[sigmoid_pair_loss]"});
}

}  // namespace
}  // namespace ermoe::testing
