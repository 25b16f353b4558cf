// Loss-free balancing (Wang et al., arXiv 2408.15664): a bias on each expert, moved against its load, decides with the gate who
// is chosen, and no loss term pulls at the gradients.
//   g_e = σ(x·w_e)                          the gate; softmax over the experts with moe.gate softmax
//   chosen: the K largest of g_e + b_e      weights: g_e of the chosen, not renormalised, so b has no gradient
//   b_e += γ sign(mean load − load_e)       once after each accepted step; loads of all its micro-batches and ranks
// The source has the sigmoid gate in its main experiments and softmax in an appendix, and takes γ 1e-3. The bias is a buffer: it
// is frozen at evaluation, kept in checkpoints, and averaged weights are evaluated with that of the training weights.
#include "core/flat.h"
#include "models/router.h"
#include "ops/add.h"
#include "ops/balance_bias.h"
#include "ops/cast.h"
#include "ops/gather_slots.h"
#include "ops/linear.h"
#include "ops/sigmoid.h"
#include "ops/softmax.h"

namespace ermoe {
namespace {

class BiasBalancedRouter final : public Router {
 public:
  BiasBalancedRouter(const MoeConfig& moe, const ExpertDims& dims) : moe_(moe), dims_(dims) {
    weight_.shape = {dims.experts, dims.width};
    weight_.decay = true;
    bias_.shape = {dims.experts};
  }

  Routing route(const ExecContext& ctx, const RouterInput& in, PinnedSelection& pinned) override {
    const Variable logits = cast(ctx, linear(ctx, in.x, weight_, Variable()), weight_.value.dtype());  // (N, E)
    const Variable gates = moe_.gate == Gate::sigmoid ? sigmoid(ctx, logits) : softmax(ctx, logits);
    const bool chosen_here = !pinned.made;
    if (chosen_here) {
      pinned.selection = select_experts(ctx, {.scores = gates.value,
                                              .order = add_bias(ctx, gates.detached(), Variable(bias_.value)).value,
                                              .slots = moe_.top_k,
                                              .threshold = {},
                                              .allow = in.allow,
                                              .free_experts = 0});
      pinned.made = true;
    }
    Routing routing;
    routing.weights = gather_slots(ctx, gates, pinned.selection.ids);
    routing.plan = make_plan(ctx, pinned.selection.ids, dims_.all());
    if (chosen_here && in.statistics == Statistics::collect) collect(ctx, routing.plan.counts);
    routing.scores = gates.value;
    routing.logits = logits;
    routing.matrix = in_full_precision(weight_);
    return routing;
  }

  void reduce_statistics(const ExecContext& ctx) override {
    if (loads_.defined()) ctx.comm->all_reduce(loads_, ReduceOp::sum);
  }
  void accept_step(const ExecContext& ctx) override {
    if (loads_.defined()) move_biases(ctx, loads_, moe_.bias_rate, bias_.value);
    loads_ = {};
  }
  void discard_step() override { loads_ = {}; }
  /// A bias follows from the loads of many steps: those of one pass replace nothing.
  void replace_statistics(const ExecContext&) override { loads_ = {}; }

  void init(const ExecContext&, RngKey key) override {
    fill_normal(weight_.value, 0.02, key_of(key, weight_.name));
    fill(bias_.value, 0);
  }
  bool has_matrix() const override { return true; }
  double scoring_flops() const override { return 2.0 * static_cast<double>(dims_.width * dims_.experts); }
  void visit(const std::string& prefix, const Visitor& visitor) override {
    visitor(join(prefix, "weight"), weight_);
    visitor(join(prefix, "bias"), bias_);
  }

 private:
  void collect(const ExecContext& ctx, const Tensor& counts) {
    if (!loads_.defined()) {
      loads_ = ctx.empty({dims_.experts}, bias_.value.dtype(), "router statistics");
      fill(loads_, 0);
    }
    add_counts(ctx, counts, loads_);
  }

  MoeConfig moe_;
  ExpertDims dims_;
  Parameter weight_;  // (E, D)
  Buffer bias_;       // (E)
  Tensor loads_;      // (E) slots of each expert in this step
};

}  // namespace

std::unique_ptr<Router> make_bias_balanced_router(const MoeConfig& moe, const ExpertDims& dims, ExpertBank*) {
  return std::make_unique<BiasBalancedRouter>(moe, dims);
}

}  // namespace ermoe
