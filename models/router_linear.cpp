// Routers with learned logits: softmax of x Wᵀ, the K largest probabilities. One class for three of the comparison's
// rules, which differ in noise and loss terms alone:
//   linear      no loss term ("standard routing logits")
//   vmoe        noise on the logits, importance and load losses, optional capacity (V-MoE, arXiv 2106.05974), kept in token order or,
//               with moe.prioritized, in the order of the tokens' largest weights (its Batch Prioritized Routing; the noised
//               weights while training, since they are what routes)
//   switch_lbl  the balance loss of the Switch transformer (models/added_losses.h)
#include "models/router.h"
#include "ops/add_noise.h"
#include "ops/balance_loss.h"
#include "ops/cast.h"
#include "ops/gather_slots.h"
#include "ops/linear.h"
#include "ops/rank_tokens.h"
#include "ops/scale.h"
#include "ops/softmax.h"

#include <cmath>

namespace ermoe {
namespace {

class LinearRouter final : public Router {
 public:
  LinearRouter(const MoeConfig& moe, const ExpertDims& dims);

  Routing route(const ExecContext& ctx, const RouterInput& in, PinnedSelection& pinned) override;
  void init(const ExecContext& ctx, RngKey key) override;
  bool has_matrix() const override { return true; }
  double scoring_flops() const override { return 2.0 * static_cast<double>(dims_.width * dims_.experts); }
  void visit(const std::string& prefix, const Visitor& visitor) override;

 private:
  Variable noisy(const ExecContext& ctx, const Variable& logits) const;
  void apply_capacity(const ExecContext& ctx, const Tensor& probabilities, const Tensor& ids) const;
  std::vector<LossTerm> loss_terms(const ExecContext& ctx, const RouterInput& in, const Variable& logits, const Variable& noised) const;

  MoeConfig moe_;
  ExpertDims dims_;
  Parameter weight_;  // (E, D)
};

LinearRouter::LinearRouter(const MoeConfig& moe, const ExpertDims& dims) : moe_(moe), dims_(dims) {
  weight_.shape = {dims.experts, dims.width};
  weight_.decay = true;
}

/// logits + ε, ε normal with deviation noise/E, while training.
Variable LinearRouter::noisy(const ExecContext& ctx, const Variable& logits) const {
  if (moe_.router != RouterKind::vmoe || moe_.noise == 0 || !ctx.training()) return logits;
  return add_noise(ctx, logits, moe_.noise / static_cast<double>(dims_.experts), ctx.rng.fold(1));
}

/// Drops the assignments beyond ceil(N·K·factor/E) of an expert; first choices of all tokens are kept before second ones.
void LinearRouter::apply_capacity(const ExecContext& ctx, const Tensor& probabilities, const Tensor& ids) const {
  const double factor = ctx.training() ? moe_.capacity_train : moe_.capacity_eval;
  if (moe_.router != RouterKind::vmoe || factor <= 0) return;
  const double capacity = std::ceil(static_cast<double>(ids.numel()) * factor / static_cast<double>(dims_.experts));
  Tensor order;
  if (moe_.prioritized) order = rank_tokens(ctx, gather_slots(ctx.with_tape(nullptr), Variable(probabilities), ids).value);
  limit_capacity(ctx, ids, dims_.all(), static_cast<int64_t>(capacity), order);
}

std::vector<LossTerm> LinearRouter::loss_terms(const ExecContext& ctx, const RouterInput& in, const Variable& logits,
                                               const Variable& noised) const {
  std::vector<LossTerm> terms;
  const auto add_term = [&](const char* name, const Variable& value, double weight) { terms.push_back({name, scale(ctx, value, weight)}); };
  if (!ctx.training() || moe_.router != RouterKind::vmoe) return terms;
  const int64_t groups = in.images % moe_.group_images == 0 ? in.images / moe_.group_images : 1;
  const bool any = moe_.importance_weight > 0 || moe_.load_weight > 0;
  const Tensor weights = any ? weights_of_tokens(ctx, in, groups) : Tensor();
  const double sigma = (moe_.noise > 0 ? moe_.noise : 1.0) / static_cast<double>(dims_.experts);
  if (moe_.importance_weight > 0)
    add_term("importance", importance_loss(ctx, softmax(ctx, logits), groups, weights), moe_.importance_weight);
  if (moe_.load_weight > 0) add_term("load", load_loss(ctx, logits, noised, moe_.top_k, sigma, groups, weights), moe_.load_weight);
  return terms;
}

Routing LinearRouter::route(const ExecContext& ctx, const RouterInput& in, PinnedSelection& pinned) {
  const Variable raw = linear(ctx, in.x, weight_, Variable());
  const Variable logits = cast(ctx, raw, weight_.value.dtype());  // (N, E); f32 also where the model computes in bf16
  const Variable noised = noisy(ctx, logits);
  const Variable probabilities = softmax(ctx, noised);
  if (!pinned.made) {
    pinned.selection = select_experts(
        ctx,
        {.scores = probabilities.value, .order = noised.value, .slots = moe_.top_k, .threshold = {}, .allow = in.allow, .free_experts = 0});
    apply_capacity(ctx, probabilities.value, pinned.selection.ids);
    pinned.made = true;
  }
  Routing routing;
  routing.losses = loss_terms(ctx, in, logits, noised);
  routing.logits = logits;
  routing.matrix = in_full_precision(weight_);
  routing.probabilities = probabilities;
  routing.weights = gather_slots(ctx, probabilities, pinned.selection.ids);
  routing.plan = make_plan(ctx, pinned.selection.ids, dims_.all());
  routing.scores = probabilities.value;
  return routing;
}

void LinearRouter::init(const ExecContext&, RngKey key) { fill_normal(weight_.value, 0.02, key_of(key, weight_.name)); }

void LinearRouter::visit(const std::string& prefix, const Visitor& visitor) { visitor(join(prefix, "weight"), weight_); }

std::unique_ptr<Router> make_linear(const MoeConfig& moe, const ExpertDims& dims) { return std::make_unique<LinearRouter>(moe, dims); }

}  // namespace

std::unique_ptr<Router> make_linear_router(const MoeConfig& moe, const ExpertDims& dims, ExpertBank*) { return make_linear(moe, dims); }
std::unique_ptr<Router> make_vmoe_router(const MoeConfig& moe, const ExpertDims& dims, ExpertBank*) { return make_linear(moe, dims); }
std::unique_ptr<Router> make_switch_lbl_router(const MoeConfig& moe, const ExpertDims& dims, ExpertBank*) { return make_linear(moe, dims); }

}  // namespace ermoe
