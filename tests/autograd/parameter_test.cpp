// The arena's bf16 copies: which parameters have one, where it lies, and when it is up to date.
#include "autograd/parameter.h"

#include "tests/bench.h"

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

}  // namespace
}  // namespace ermoe::testing
