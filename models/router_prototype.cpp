// Routing to the nearest prototype, on the unit sphere, with a penalty on the prototypes' spectrum. After SR-MoE (Delibasoglu, arXiv
// 2601.03889), which is known here by its abstract and a second-hand description alone: there p = softmax(-‖z - μ_e‖²/τ) over learned
// prototypes, and two penalties on the routing matrix, one that bounds its spectral norm and one that keeps its stable rank high; their
// formulas were not at hand. Implemented is:
//   l_e = cos(x, μ_e) / τ,  p = softmax(l)    μ (E, D) learned, τ = moe.prototype_temperature
//   moe.prototype_spectrum · ‖P Pᵀ - I‖²      P the prototypes at unit length, the norm that of Frobenius; while training
// On the sphere -‖z - μ‖² is 2 cos - 2, so p is the source's with half its τ. And there the stable rank is E/σ_max(P)², so that both
// penalties of the source ask for a small σ_max, which ‖P Pᵀ - I‖² = Σ (σ_i² - 1)², over E values, bounds. The K largest of l are
// chosen, the assignment of spherical k-means; their weights are p, not renormalised. Prototypes move by gradients, not by means.
// Chosen freely: τ 0.1, the weight 0.01, a standard deviation of 0.02 at the start.
#include "models/router.h"
#include "ops/add.h"
#include "ops/cast.h"
#include "ops/gather_slots.h"
#include "ops/l2_normalize.h"
#include "ops/linear.h"
#include "ops/regression_loss.h"
#include "ops/scale.h"
#include "ops/softmax.h"
#include "ops/tokens.h"

namespace ermoe {
namespace {

constexpr double shortest = 1e-12;  // norm below which a vector has no direction

class PrototypeRouter final : public Router {
 public:
  PrototypeRouter(const MoeConfig& moe, const ExpertDims& dims) : moe_(moe), dims_(dims) {
    prototypes_.shape = {dims.experts, dims.width};
    prototypes_.decay = true;
    prototypes_.full_precision = true;  // what is compared is f32
  }

  Routing route(const ExecContext& ctx, const RouterInput& in, PinnedSelection& pinned) override {
    const Variable x = cast(ctx, in.x, prototypes_.value.dtype()), units = l2_normalize(ctx, prototypes_, shortest);
    const Variable cosines = linear(ctx, l2_normalize(ctx, x, shortest), units, Variable());  // (N, E)
    if (!pinned.made) {
      pinned.selection = select_experts(
          ctx, {.scores = cosines.value, .order = {}, .slots = moe_.top_k, .threshold = {}, .allow = in.allow, .free_experts = 0});
      pinned.made = true;
    }
    Routing routing;
    routing.probabilities = softmax(ctx, scale(ctx, cosines, 1 / moe_.prototype_temperature));
    routing.weights = gather_slots(ctx, routing.probabilities, pinned.selection.ids);
    routing.plan = make_plan(ctx, pinned.selection.ids, dims_.all());
    routing.scores = cosines.value;
    if (ctx.training() && moe_.prototype_spectrum > 0)
      routing.losses.push_back({"spectrum", scale(ctx, spread(ctx, units), moe_.prototype_spectrum)});
    return routing;
  }

  void init(const ExecContext&, RngKey key) override { fill_normal(prototypes_.value, 0.02, key_of(key, prototypes_.name)); }
  bool has_logits() const override { return false; }  // cosines over τ are bounded
  double scoring_flops() const override { return 2.0 * static_cast<double>(dims_.width * dims_.experts); }
  void visit(const std::string& prefix, const Visitor& visitor) override { visitor(join(prefix, "prototypes"), prototypes_); }

 private:
  /// ‖P Pᵀ - I‖² of rows of unit length: the squares of all products, less the E that are 1 by construction.
  Variable spread(const ExecContext& ctx, const Variable& units) const {
    const int64_t E = dims_.experts;
    const Variable products = reshape(ctx, linear(ctx, units, units, Variable()), {E * E});
    const Tensor nothing = ctx.empty({E * E}, products.dtype());
    fill(nothing, 0);
    const Variable squares = scale(ctx, l2_loss(ctx, products, nothing), static_cast<double>(E * E));
    const Tensor own = ctx.empty(squares.shape(), squares.dtype());
    fill(own, -static_cast<double>(E));
    return add(ctx, squares, Variable(own));
  }

  MoeConfig moe_;
  ExpertDims dims_;
  Parameter prototypes_;  // (E, D)
};

}  // namespace

std::unique_ptr<Router> make_prototype_router(const MoeConfig& moe, const ExpertDims& dims, ExpertBank*) {
  return std::make_unique<PrototypeRouter>(moe, dims);
}

}  // namespace ermoe
