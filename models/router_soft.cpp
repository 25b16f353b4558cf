// Soft mixtures (Soft MoE: Puigcerver et al., arXiv 2308.00951): nothing is chosen. Each expert has P slots an image; a slot's input is a
// weighted mean of the image's tokens, and a token's output a weighted mean of all slots' outputs.
//   L = X̂ (scale Φ̂)ᵀ               (T, S) of an image's tokens; rows of X̂ and of Φ̂ (S, D) have unit length, S = E P
//   dispatch D = softmax of L over tokens, combine C = softmax of L over slots
//   Y = C f(Dᵀ X)                   f of a slot is its expert's network; X itself, not X̂
// scale is learned and starts at 1; slot s is expert s mod E's. P = moe.soft_slots, else K T/E rounded up: as many rows as tokens that
// choose K experts each. Images do not mix, so a batch decides nothing. The source has one slot an expert as its best; ties of a choice,
// capacities and dropped tokens do not exist. Products are made in the model's dtype, both softmaxes in f32.
#include "core/flat.h"
#include "models/router.h"
#include "ops/cast.h"
#include "ops/l2_normalize.h"
#include "ops/layer_scale.h"
#include "ops/linear.h"
#include "ops/scale.h"
#include "ops/softmax.h"
#include "ops/tokens.h"
#include "ops/transpose.h"

#include <cmath>

namespace ermoe {
namespace {

constexpr double shortest = 1e-6;  // norm below which a vector has no direction, as in the source's code

class SoftRouter final : public Router {
 public:
  explicit SoftRouter(const ExpertDims& dims) : dims_(dims) {
    phi_.shape = {dims.experts * dims.slots, dims.width};
    scale_.shape = {1};
    phi_.decay = true;
    phi_.full_precision = scale_.full_precision = true;
  }

  Routing route(const ExecContext& ctx, const RouterInput& in, PinnedSelection& pinned) override {
    check(!in.allow.defined(), "[soft] a mask of tokens and experts, but every expert sees every token");
    const int64_t B = in.images, N = in.x.shape()[0], T = B > 0 ? N / B : 1, S = phi_.shape[0];
    const DType compute = in.x.dtype(), full = scale_.value.dtype();
    const Variable directions = cast(ctx, scaled_directions(ctx), compute);
    const Variable logits = cast(ctx, linear(ctx, l2_normalize(ctx, in.x, shortest), directions, Variable()), full);
    const Variable by_image = reshape(ctx, logits, {B, T, S}), combine = softmax(ctx, by_image);
    if (!pinned.made) pinned.selection.ids = ids_in_turn(ctx, {B * S, 1}, dims_.experts, 1);
    pinned.made = true;
    Routing routing;
    routing.dispatch = cast(ctx, softmax(ctx, transpose(ctx, by_image)), compute);
    routing.combine = cast(ctx, combine, compute);
    routing.plan = make_plan(ctx, pinned.selection.ids, dims_.experts);
    const Tensor ones = ctx.empty({B * S, 1}, full);
    fill(ones, 1);
    routing.weights = Variable(ones);
    routing.scores = weight_of_experts(ctx, combine.value.reshape({N, dims_.slots, dims_.experts}));
    return routing;
  }

  void init(const ExecContext&, RngKey key) override {
    fill_normal(phi_.value, 1 / std::sqrt(static_cast<double>(dims_.width)), key_of(key, phi_.name));
    fill(scale_.value, 1);
  }
  bool has_logits() const override { return false; }  // cosines times one number
  /// Logits, the slots' inputs, and the tokens' outputs.
  double scoring_flops() const override { return 3 * 2.0 * static_cast<double>(phi_.shape.numel()); }
  void visit(const std::string& prefix, const Visitor& visitor) override {
    visitor(join(prefix, "phi"), phi_);
    visitor(join(prefix, "scale"), scale_);
  }

 private:
  /// (S, D): scale Φ̂.
  Variable scaled_directions(const ExecContext& ctx) {
    const Variable unit = l2_normalize(ctx, phi_, shortest);
    return reshape(ctx, layer_scale(ctx, reshape(ctx, unit, {phi_.shape.numel(), 1}), scale_), phi_.shape);
  }

  /// (N, E): the sum over an expert's slots of combine (N, P, E), how much of a token's output is the expert's.
  Tensor weight_of_experts(const ExecContext& ctx, const Tensor& combine) const {
    return scale(ctx, mean_pool(ctx, Variable(combine), 0), static_cast<double>(dims_.slots)).value;
  }

  ExpertDims dims_;
  Parameter phi_;    // (S, D)
  Parameter scale_;  // (1)
};

}  // namespace

std::unique_ptr<Router> make_soft_router(const MoeConfig&, const ExpertDims& dims, ExpertBank*) {
  return std::make_unique<SoftRouter>(dims);
}

}  // namespace ermoe
