// Experts choose tokens instead of tokens experts (expert choice: Zhou et al., arXiv 2202.09368), so every expert has the same load.
//   p = softmax(x Wᵀ)       over the experts
//   of a group of n tokens each expert takes the c n/E with its largest p (rounded up), ties the lower token first; c = moe.top_k
//   y_n = Σ p_ne f_e(x_n)   over the experts that took token n, weights not renormalised; a token that nobody took passes through
// The group is all tokens of the rank's micro-batch, or those of moe.choice_images images that follow one another. What an image gets
// thus depends on the images beside it, at evaluation too, unless groups are single images: that is the method's, and so is that a
// token's experts depend on tokens behind it. The source has no word on rounding, ties, or what a group is on several devices.
#include "models/router.h"
#include "ops/cast.h"
#include "ops/choose_tokens.h"
#include "ops/gather_slots.h"
#include "ops/linear.h"
#include "ops/softmax.h"

namespace ermoe {
namespace {

class ExpertChoiceRouter final : public Router {
 public:
  ExpertChoiceRouter(const MoeConfig& moe, const ExpertDims& dims) : moe_(moe), dims_(dims) {
    weight_.shape = {dims.experts, dims.width};
    weight_.decay = true;
  }

  /// The plan has a slot a token and expert, the strongest first, of which few are filled: rows are as many as experts take.
  Routing route(const ExecContext& ctx, const RouterInput& in, PinnedSelection& pinned) override {
    const Variable logits = cast(ctx, linear(ctx, in.x, weight_, Variable()), weight_.value.dtype());  // (N, E)
    const Variable probabilities = softmax(ctx, logits);
    const ChoiceDims choice = choice_of(in);
    if (!pinned.made) {
      const Tensor taken = choose_tokens(ctx, choice, probabilities.value, in.allow);
      pinned.selection = select_experts(
          ctx, {.scores = probabilities.value, .order = {}, .slots = dims_.experts, .threshold = {}, .allow = taken, .free_experts = 0});
      pinned.made = true;
    }
    Routing routing;
    routing.weights = gather_slots(ctx, probabilities, pinned.selection.ids);
    routing.plan = make_plan(ctx, pinned.selection.ids, dims_.all(), choice.rows());
    routing.logits = logits;
    routing.probabilities = probabilities;
    routing.scores = probabilities.value;
    return routing;
  }

  void init(const ExecContext&, RngKey key) override { fill_normal(weight_.value, 0.02, key_of(key, weight_.name)); }
  double scoring_flops() const override { return 2.0 * static_cast<double>(dims_.width * dims_.experts); }
  void visit(const std::string& prefix, const Visitor& visitor) override { visitor(join(prefix, "weight"), weight_); }

 private:
  ChoiceDims choice_of(const RouterInput& in) const {
    const int64_t N = in.x.shape()[0], group = moe_.choice_images == 0 ? N : moe_.choice_images * (N / std::max<int64_t>(1, in.images));
    return {.tokens = N, .experts = dims_.experts, .group = std::max<int64_t>(1, group), .each = moe_.top_k};
  }

  MoeConfig moe_;
  ExpertDims dims_;
  Parameter weight_;  // (E, D)
};

}  // namespace

std::unique_ptr<Router> make_expert_choice_router(const MoeConfig& moe, const ExpertDims& dims, ExpertBank*) {
  return std::make_unique<ExpertChoiceRouter>(moe, dims);
}

}  // namespace ermoe
