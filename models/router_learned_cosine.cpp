// Routing on a hypersphere, with learned expert embeddings (X-MoE: Chi et al., arXiv 2204.09179): a token is projected to few
// dimensions and compared with each expert's embedding by direction alone.
//   s_e = cos(W_p x, M_e)       W_p (P, D), M (E, P); P = moe.cosine_width
//   p = softmax(min(e^t, 100) s)   t learned, e^t = moe.cosine_scale at the start
// The K largest of s are chosen; their weights are p, not renormalised, as those of `linear` are. Chosen where sources differ: P 256,
// the bound of 100 and the start of 2 as in the public Tutel library, the softmax over all experts as in X-MoE. W_p has no bias.
// What stands as the matrix of a router (Routing::matrix): the embeddings, a unit row each, since only their directions score.
#include "models/router.h"
#include "ops/at_most.h"
#include "ops/cast.h"
#include "ops/combine_weights.h"
#include "ops/gather_slots.h"
#include "ops/l2_normalize.h"
#include "ops/linear.h"

#include <cmath>

namespace ermoe {
namespace {

constexpr double largest_scale = 100;
constexpr double shortest = 1e-12;  // norm below which a vector has no direction

class LearnedCosineRouter final : public Router {
 public:
  LearnedCosineRouter(const MoeConfig& moe, const ExpertDims& dims) : moe_(moe), dims_(dims) {
    projection_.shape = {moe.cosine_width, dims.width};
    embeddings_.shape = {dims.experts, moe.cosine_width};
    temperature_.shape = {1};
    projection_.decay = embeddings_.decay = true;
    embeddings_.full_precision = temperature_.full_precision = true;  // what is compared is f32
  }

  Routing route(const ExecContext& ctx, const RouterInput& in, PinnedSelection& pinned) override {
    const Variable z = cast(ctx, linear(ctx, in.x, projection_, Variable()), projection_.value.dtype());  // (N, P)
    const Variable directions = l2_normalize(ctx, embeddings_, shortest);                                 // (E, P)
    const Variable s = linear(ctx, l2_normalize(ctx, z, shortest), directions, Variable());
    if (!pinned.made) {
      pinned.selection =
          select_experts(ctx, {.scores = s.value, .order = {}, .slots = moe_.top_k, .threshold = {}, .allow = in.allow, .free_experts = 0});
      pinned.made = true;
    }
    const Variable t = at_most(ctx, temperature_, std::log(largest_scale));
    Routing routing;
    routing.matrix = directions;
    routing.probabilities = combine_weights(ctx, s, ids_in_turn(ctx, s.shape(), dims_.experts, 1), CombineRule::softmax, {}, t);
    routing.weights = gather_slots(ctx, routing.probabilities, pinned.selection.ids);
    routing.plan = make_plan(ctx, pinned.selection.ids, dims_.all());
    routing.scores = s.value;
    return routing;
  }

  void init(const ExecContext&, RngKey key) override {
    fill_xavier(projection_.value, dims_.width, moe_.cosine_width, key_of(key, projection_.name));
    fill_normal(embeddings_.value, 0.02, key_of(key, embeddings_.name));
    fill(temperature_.value, std::log(moe_.cosine_scale));
  }
  bool has_logits() const override { return false; }  // e^t is bounded, and so is a cosine
  bool has_matrix() const override { return true; }
  /// The projection, and a product with each embedding.
  double scoring_flops() const override { return 2.0 * static_cast<double>(moe_.cosine_width * (dims_.width + dims_.experts)); }
  void visit(const std::string& prefix, const Visitor& visitor) override {
    visitor(join(prefix, "projection"), projection_);
    visitor(join(prefix, "embeddings"), embeddings_);
    visitor(join(prefix, "temperature"), temperature_);
  }

 private:
  MoeConfig moe_;
  ExpertDims dims_;
  Parameter projection_;   // (P, D)
  Parameter embeddings_;   // (E, P)
  Parameter temperature_;  // (1)
};

}  // namespace

std::unique_ptr<Router> make_learned_cosine_router(const MoeConfig& moe, const ExpertDims& dims, ExpertBank*) {
  return std::make_unique<LearnedCosineRouter>(moe, dims);
}

}  // namespace ermoe
