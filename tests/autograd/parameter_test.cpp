// The arena's bf16 copies: which parameters have one, where it lies, and when it is up to date. Its groups of factors: what
// they hold, and when they have memory for gradients. Narrow gradients: whose they are, and that nothing is added to them.
#include "autograd/memory/parameter_arena.h"

#include "autograd/tape.h"
#include "tests/bench.h"
#include "tests/ops/expect_error.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace ermoe::testing {
namespace {

struct Declared {
  Declared() {
    weight.shape = {5, 3};
    bias.shape = {7};
    bias.full_precision = true;
    scales.shape = {2, 3};
    tall.shape = {2, 9, 3};
    tall_too.shape = {9, 3};
    none.shape = {2, 9, 0};
    for (Parameter* p : {&scales, &tall, &tall_too, &none}) p->role = Parameter::Role::factor;
    for (Parameter* p : {&tall, &tall_too, &none}) p->orthonormal = true;
  }
  std::vector<Parameter*> all() { return {&weight, &scales, &tall, &none, &bias, &tall_too}; }
  Parameter weight, bias, scales, tall, tall_too, none;
};

void fill_values(const ExecContext& ctx, const std::vector<Parameter*>& parameters) {
  for (size_t i = 0; i < parameters.size(); ++i)
    copy(random_input(ctx, {parameters[i]->shape}, DType::f32, RngKey{i}), parameters[i]->value);
}

TEST(ParameterArena, OrthonormalFactorsHaveTwinsThatLieAsTheirValuesDo) {
  TestBench bench;
  Declared declared;
  ParameterArena arena(bench.allocator, DType::f32, DType::bf16, declared.all());
  fill_values(bench.ctx, declared.all());
  arena.refresh_compute();
  for (const Parameter* p : {&declared.tall, &declared.tall_too}) {
    ASSERT_EQ(p->twin.dtype(), DType::bf16);
    EXPECT_EQ(to_doubles(p->twin), bf16_values(p->value));
    const auto at = (p->value.raw() - arena.values(Parameter::Role::factor).raw()) / static_cast<int64_t>(size_of(DType::f32));
    EXPECT_EQ(p->twin.raw(), arena.twins().window(at, p->shape).raw());
  }
  EXPECT_EQ(declared.none.twin.shape(), declared.none.shape);
  for (const Parameter* p : {&declared.weight, &declared.bias, &declared.scales}) EXPECT_FALSE(p->twin.defined());
  EXPECT_EQ(to_doubles(declared.weight.compute), bf16_values(declared.weight.value));
  EXPECT_LT(arena.twins().numel(), arena.values(Parameter::Role::factor).numel());  // none for the scales
}

TEST(ParameterArena, WithoutBf16ThereAreNoTwins) {
  TestBench bench;
  Declared declared;
  const ParameterArena narrow(bench.allocator, DType::f32, DType::bf16, declared.all());
  ASSERT_TRUE(declared.tall.twin.defined());
  const ParameterArena wide(bench.allocator, DType::f32, declared.all());  // the same parameters find a new arena
  EXPECT_FALSE(wide.twins().defined());
  for (const Parameter* p : declared.all()) EXPECT_FALSE(p->twin.defined());
}

/// A matrix made of factors whose gradient may be narrow, one that may not, and a trained one that asks in vain.
struct Matrices {
  Matrices() {
    for (Parameter* p : all()) p->shape = {3, 5};
    for (Parameter* p : {&narrow, &wide}) p->role = Parameter::Role::derived;
    for (Parameter* p : {&narrow, &trained}) p->narrow_grad = true;
    narrow.name = "narrow";
  }
  std::vector<Parameter*> all() { return {&narrow, &wide, &trained}; }
  Parameter narrow, wide, trained;
};

TEST(ParameterArena, AGradientIsNarrowWhereItIsWrittenOnceAndComputedInBf16) {
  TestBench bench;
  Matrices m;
  for (const auto& [compute, writes] :
       {std::pair(DType::bf16, GradWrites::once), {DType::bf16, GradWrites::many}, {DType::f32, GradWrites::once}}) {
    const bool narrow = compute == DType::bf16 && writes == GradWrites::once;
    ParameterArena arena(bench.allocator, DType::f32, compute, m.all(), writes);
    EXPECT_EQ(m.narrow.grad.dtype(), narrow ? DType::bf16 : DType::f32);
    EXPECT_EQ(m.narrow.grad.shape(), m.narrow.shape);
    for (const Parameter* p : {&m.wide, &m.trained}) EXPECT_EQ(p->grad.dtype(), DType::f32);
    EXPECT_EQ(arena.narrow_grads().bytes(), narrow ? 64u : 0u);
    EXPECT_EQ(arena.grads(Parameter::Role::derived).bytes(), narrow ? 64u : 128u);
    fill(m.narrow.grad, 7);
    arena.begin_gradients();
    arena.end_gradients(Parameter::Role::derived);  // nobody wrote it
    EXPECT_EQ(to_doubles(m.narrow.grad), std::vector<double>(15, 0));
  }
}

/// Hands on what comes, as it is.
struct Pass {
  static constexpr const char* name = "pass";
  void backward(const ExecContext&, const Tensor& dy, GradWriter& out) const { out.give(0, dy); }
};

TEST(ParameterArena, ANarrowGradientIsRoundedOnceAndNeverAddedTo) {
  TestBench bench;
  Matrices m;
  ParameterArena arena(bench.allocator, DType::f32, DType::bf16, m.all(), GradWrites::once);
  m.narrow.compute = bench.ctx.empty(m.narrow.shape, DType::bf16);
  const Tensor dy = random_input(bench.ctx, {m.narrow.shape}, DType::f32, RngKey{1});
  const auto backward = [&] {
    Tape tape;
    const Variable x(m.narrow), y = record(bench.ctx.with_tape(&tape), x.value, {&x}, Pass{});
    tape.backward(bench.ctx, y, dy);
  };
  for (int step = 0; step < 2; ++step) {
    arena.begin_gradients();
    backward();
    EXPECT_EQ(to_doubles(m.narrow.grad), bf16_values(dy));
  }
  expect_error(backward, {"[grad_writer]", "narrow", "written once"});
  EXPECT_EQ(to_doubles(m.narrow.grad), bf16_values(dy));
}

/// Orthonormal factors (count, 8, 4) f32 named by their number: 32 elements a matrix, so none needs padding.
std::vector<Parameter> factors_of(const std::vector<int64_t>& counts) {
  std::vector<Parameter> all;
  for (const int64_t count : counts) {
    Parameter& p = all.emplace_back();
    p.name = std::to_string(all.size() - 1);
    p.shape = {count, 8, 4};
    p.role = Parameter::Role::factor;
    p.orthonormal = true;
  }
  return all;
}

std::vector<Parameter*> pointers_to(std::vector<Parameter>& parameters) {
  std::vector<Parameter*> all;
  for (Parameter& p : parameters) all.push_back(&p);
  return all;
}

TEST(ParameterArena, OrthonormalFactorsHaveGradientsFromTakingThemToTheNextBegin) {
  TestBench bench;
  Declared declared;
  ParameterArena arena(bench.allocator, DType::f32, declared.all());
  const size_t before = bench.allocator.stats().live;
  for (int step = 0; step < 2; ++step) {
    for (const Parameter* p : declared.all()) EXPECT_EQ(p->grad.defined(), p != &declared.tall && p != &declared.tall_too);
    EXPECT_EQ(bench.allocator.stats().live, before);
    arena.take_factor_gradients(bench.allocator);
    for (const Parameter* p : declared.all()) EXPECT_EQ(p->grad.shape(), p->shape);
    EXPECT_EQ(arena.factor_gradient_bytes(), declared.tall.value.bytes() + declared.tall_too.value.bytes());
    EXPECT_GE(bench.allocator.stats().live, before + arena.factor_gradient_bytes());
    arena.end_gradients(Parameter::Role::factor);  // nobody wrote any
    for (const Parameter* p : {&declared.scales, &declared.tall, &declared.tall_too})
      for (double g : to_doubles(p->grad)) EXPECT_EQ(g, 0);
    arena.begin_gradients();
  }
}

TEST(ParameterArena, AGroupHoldsFactorsOfOneShapeWithNothingBetweenThem) {
  TestBench bench;
  std::vector<Parameter> alike = factors_of({3, 3, 2});
  alike[2].shape = {2, 4, 8};
  const ParameterArena arena(bench.allocator, DType::f32, pointers_to(alike));
  ASSERT_EQ(arena.factor_groups().size(), 2u);
  EXPECT_EQ(arena.factor_groups()[0].members, (std::vector<Parameter*>{&alike[0], &alike[1]}));
  EXPECT_EQ(arena.factor_groups()[0].elements, 2 * 3 * 32);

  Declared declared;  // 9 x 3 elements end between two slots
  const ParameterArena padded(bench.allocator, DType::f32, declared.all());
  EXPECT_EQ(padded.factor_groups().size(), 2u);
}

TEST(ParameterArena, FactorsWhoseGradientsMayBeNarrowAreGroupedApart) {
  TestBench bench;
  std::vector<Parameter> alike = factors_of({2, 2, 2});
  alike[0].narrow_grad = alike[2].narrow_grad = true;
  for (const auto& [compute, writes] :
       {std::pair(DType::bf16, GradWrites::once), {DType::bf16, GradWrites::many}, {DType::f32, GradWrites::once}}) {
    const bool narrow = compute == DType::bf16 && writes == GradWrites::once;
    ParameterArena arena(bench.allocator, DType::f32, compute, pointers_to(alike), writes);
    const size_t wide_bytes = 6 * 32 * sizeof(float), saved = narrow ? 4 * 32 * 2 : 0;
    EXPECT_EQ(arena.factor_groups().size(), narrow ? 2u : 1u);
    EXPECT_EQ(arena.factor_gradient_bytes(), wide_bytes - saved);
    arena.take_factor_gradients(bench.allocator);
    for (const Parameter& p : alike) {
      EXPECT_EQ(p.grad.dtype(), narrow && p.narrow_grad ? DType::bf16 : DType::f32) << p.name;
      EXPECT_EQ(p.grad.shape(), p.shape);
    }
    arena.end_gradients(Parameter::Role::factor);  // nobody wrote any
    for (const Parameter& p : alike) EXPECT_EQ(to_doubles(p.grad), std::vector<double>(static_cast<size_t>(p.shape.numel())));
    arena.begin_gradients();
  }
}

TEST(ParameterArena, GroupsAreOfLimitedSizeButHoldAtLeastOneFactor) {
  CachingAllocator quick{make_host_source()};
  std::vector<Parameter> large = factors_of({9, 4, 4, 1});
  const ParameterArena arena(quick, DType::f32, DType::f32, pointers_to(large), GradWrites::many, 8 * 32);
  std::vector<size_t> sizes;
  for (const FactorGroup& group : arena.factor_groups()) sizes.push_back(group.members.size());
  EXPECT_EQ(sizes, (std::vector<size_t>{1, 2, 1}));
}

}  // namespace
}  // namespace ermoe::testing
