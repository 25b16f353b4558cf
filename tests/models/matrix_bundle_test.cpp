// Matrices of several layers made together are those of each made alone, and so are the gradients of their factors.
#include "models/matrix_bundle.h"

#include "ops/materialize.h"
#include "tests/models/tiny_model.h"
#include "tests/ops/expect_error.h"

namespace ermoe::testing {
namespace {

VitConfig of_three_layers() {
  VitConfig c = tiny_config();
  c.depth = 3;
  c.moe.layers = "every:1";
  return c;
}

/// W1 of all layers, then W2 of all.
std::vector<FactoredMatrix> matrices_of(Vit& model) {
  std::vector<FactoredMatrix> all;
  for (const size_t number : {0, 1})
    for (MoeLayer* layer : model.moe_layers()) all.push_back(layer->experts().factored().at(number));
  return all;
}

/// One matrix alone, with the gradients of its factors that its own gradient leads to.
struct Alone {
  Alone(const ExecContext& outer, const FactoredMatrix& m, const Tensor& dw) {
    Tape tape;
    const ExecContext ctx = outer.with_tape(&tape);
    const Variable u = tape.leaf(m.u->value), s = tape.leaf(m.s->value), v = tape.leaf(m.v->value);
    const Variable made = materialize(ctx, u, s, v);
    w = made.value;
    tape.backward(ctx, made, dw);
    du = tape.grad(u), ds = tape.grad(s), dv = tape.grad(v);
  }
  Tensor w, du, ds, dv;
};

void expect_gradients(const TinyModel& tiny, const FactoredMatrix& m) {
  const Alone alone(tiny.bench.ctx, m, m.w->grad);
  EXPECT_TRUE(same_bits(m.w->value, alone.w)) << m.w->name;
  EXPECT_TRUE(same_bits(m.u->grad, alone.du)) << m.u->name;
  EXPECT_TRUE(same_bits(m.s->grad, alone.ds)) << m.s->name;
  if (last_part(m.v->name) == "V1") return;  // it has the router's as well
  EXPECT_TRUE(same_bits(m.v->grad, alone.dv)) << m.v->name;
}

TEST(MatrixBundle, LayersOfOneKindAreMadeTogether) {
  TinyModel tiny(of_three_layers());
  const std::vector<FactoredMatrix> all = matrices_of(tiny.model);
  const auto bundles = bundle_matrices(tiny.model.arena(), all);
  ASSERT_EQ(bundles.size(), 2u);
  for (const auto& bundle : bundles) EXPECT_EQ(bundle->members().size(), 3u);
  EXPECT_FALSE(follows(tiny.model.arena(), all[0], all[2]));  // one lies between
  EXPECT_FALSE(follows(tiny.model.arena(), all[2], all[3]));  // another kind
}

TEST(MatrixBundle, MakesWhatEachMakesAlone) {
  for (const DType dtype : {DType::f64, DType::f32}) {
    TinyModel tiny(of_three_layers(), dtype);
    tiny.differentiate();
    for (const FactoredMatrix& m : matrices_of(tiny.model)) expect_gradients(tiny, m);
  }
}

/// A group of factors that is full ends a bundle: gradients of the next lie elsewhere.
TEST(MatrixBundle, EndsWhereGradientsDo) {
  TinyModel tiny(of_three_layers());
  const auto all = matrices_of(tiny.model);
  const auto parameters = tiny.model.arena().parameters();
  const ParameterArena narrow(tiny.bench.allocator, DType::f64, DType::f64, {parameters.begin(), parameters.end()}, GradWrites::many,
                              2 * all[0].u->shape.numel());
  std::vector<size_t> sizes;
  for (const auto& bundle : bundle_matrices(narrow, all)) sizes.push_back(bundle->members().size());
  EXPECT_EQ(sizes, (std::vector<size_t>{2, 1, 1, 2}));  // U1, U1 | U1, V2 | V2, V2
}

TEST(MatrixBundle, AFrozenMembersFactorsHaveNoGradientAndTheOthersKeepTheirs) {
  TinyModel tiny(of_three_layers());
  const std::vector<FactoredMatrix> all = matrices_of(tiny.model);
  for (Parameter* p : {all[1].u, all[1].s, all[1].v}) p->frozen = true;
  tiny.model.refresh(tiny.bench.ctx);
  tiny.differentiate();
  for (const FactoredMatrix& m : all) {
    if (&m != &all[1]) {
      expect_gradients(tiny, m);
      continue;
    }
    for (const Parameter* p : {m.u, m.s, m.v}) EXPECT_EQ(largest_of(p->grad), 0) << p->name;
  }
}

TEST(MatrixBundle, AllFrozenTakeNoGradient) {
  TinyModel tiny(of_three_layers());
  for (const FactoredMatrix& m : matrices_of(tiny.model))
    for (Parameter* p : {m.u, m.s, m.v}) p->frozen = true;
  tiny.model.refresh(tiny.bench.ctx);
  tiny.differentiate();
  for (const FactoredMatrix& m : matrices_of(tiny.model))
    for (const Parameter* p : {m.u, m.s, m.v}) EXPECT_EQ(largest_of(p->grad), 0) << p->name;
}

/// First matrices' right factors, before the router adds to them; and nobody may have written any gradient yet.
TEST(MatrixBundle, OverwritesTheGradientsOfAllFactors) {
  TinyModel tiny(of_three_layers());
  const ExecContext& ctx = tiny.bench.ctx;
  const std::vector<FactoredMatrix> all = matrices_of(tiny.model);
  auto bundles = bundle_matrices(tiny.model.arena(), all);
  const auto pull_back = [&] {
    bundles[0]->refresh(ctx);
    for (size_t i = 0; i < 3; ++i) {
      copy(random_input(ctx, {all[i].w->shape}, DType::f64, RngKey{i}), all[i].w->grad);
      all[i].w->has_grad = true;
    }
    bundles[0]->pull_back(ctx);
  };
  tiny.model.arena().begin_gradients();
  tiny.model.arena().take_factor_gradients(tiny.bench.allocator);
  pull_back();
  for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(same_bits(all[i].v->grad, Alone(ctx, all[i], all[i].w->grad).dv)) << i;
  expect_error(pull_back, {"[matrix_bundle]", "has a gradient already"});
}

/// As a GPU's training has them: twins, and gradients of matrices and larger factors in bf16. Memory alone is looked at.
TEST(MatrixBundle, NarrowGradientsLieSideBySideToo) {
  TinyModel tiny(of_three_layers(), DType::f32);
  tiny.model.move_to(tiny.bench.ctx, DType::bf16, GradWrites::once);
  for (const FactoredMatrix& m : matrices_of(tiny.model)) EXPECT_EQ(m.w->grad.dtype(), DType::bf16);
  std::vector<size_t> sizes;
  for (const auto& bundle : bundle_matrices(tiny.model.arena(), matrices_of(tiny.model))) sizes.push_back(bundle->members().size());
  EXPECT_EQ(sizes, (std::vector<size_t>{3, 3}));
}

/// Where nobody used a layer, its matrices' gradients are zeros beside those of the others.
TEST(MatrixBundle, AMatrixThatNobodyUsedIsNoFault) {
  TinyModel tiny(of_three_layers());
  const ExecContext& ctx = tiny.bench.ctx;
  const std::vector<FactoredMatrix> all = matrices_of(tiny.model);
  auto bundles = bundle_matrices(tiny.model.arena(), all);
  tiny.model.arena().begin_gradients();
  bundles[1]->refresh(ctx);
  copy(random_input(ctx, {all[3].w->shape}, DType::f64, RngKey{1}), all[3].w->grad);
  all[3].w->has_grad = true;
  fill(all[4].w->grad, NAN);  // what a step before left
  tiny.model.arena().take_factor_gradients(tiny.bench.allocator);
  bundles[1]->pull_back(ctx);
  const Alone alone(ctx, all[3], all[3].w->grad);
  EXPECT_TRUE(same_bits(all[3].u->grad, alone.du));
  EXPECT_EQ(largest_of(all[4].u->grad), 0);
  EXPECT_EQ(largest_of(all[4].s->grad), 0);
}

}  // namespace
}  // namespace ermoe::testing
