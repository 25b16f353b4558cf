// Loss-free balancing (Wang et al., arXiv 2408.15664): a bias on each expert, moved against its load, decides with the gate who
// is chosen, and no loss term pulls at the gradients.
//   g_e = σ(x·w_e)                          the gate; softmax over the experts with moe.gate softmax
//   chosen: the K largest of g_e + b_e      weights: g_e of the chosen, not renormalised, so b has no gradient
//   b_e += γ sign(mean load − load_e)       once after each accepted step; loads of all its micro-batches and ranks
// The source has the sigmoid gate in its main experiments and softmax in an appendix, and takes γ 1e-3. The bias is a buffer: it
// is frozen at evaluation, kept in checkpoints, and averaged weights are evaluated with that of the training weights.
#include "autograd/tape.h"
#include "core/flat.h"
#include "models/router.h"
#include "ops/add.h"
#include "ops/cast.h"
#include "ops/column_sum.h"
#include "ops/gather_slots.h"
#include "ops/l2_normalize.h"
#include "ops/linear.h"
#include "ops/scale.h"
#include "ops/softmax.h"
#include "ops/tokens.h"

namespace ermoe {
namespace {

/// σ(x) as the first of softmax(x, 0): the pair is 0 and −x, exchanged.
Variable sigmoid(const ExecContext& ctx, const Variable& x) {
  const int64_t n = x.value.numel();
  const Tensor zero = ctx.empty({1, 1, 1}, x.dtype());
  fill(zero, 0);
  const Variable pairs = concat_tokens(ctx, Variable(zero), reshape(ctx, scale(ctx, x, -1), {n, 1, 1}));
  const Tensor first = Tensor::zeros(*ctx.allocator, {n, 1}, DType::i32, "activation");
  return reshape(ctx, gather_slots(ctx, softmax(ctx, reshape(ctx, pairs, {n, 2})), first), x.shape());
}

/// counts (E) += how many slots of ids (N, K) name each expert. The gradient of Σ p[n, ids[n,k]] to p counts them.
void count_slots(const ExecContext& outer, const Tensor& ids, const Tensor& counts) {
  const int64_t N = ids.shape()[0], E = counts.numel();
  const Tensor any = outer.empty({N, E}, counts.dtype()), ones = outer.empty(ids.shape(), counts.dtype());
  fill(any, 0);
  fill(ones, 1);
  Tape tape;
  const ExecContext ctx = outer.with_tape(&tape);
  const Variable p = tape.leaf(any);
  tape.backward(ctx, gather_slots(ctx, p, ids), ones);
  column_sum(ctx, {.rows = N, .cols = E, .stride = E}, tape.grad(p), {counts, Accumulate::add});
}

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
    if (!pinned.made) {
      pinned.selection = select_experts(ctx, {.scores = gates.value,
                                              .order = add_bias(ctx, gates.detached(), Variable(bias_.value)).value,
                                              .slots = moe_.top_k,
                                              .threshold = {},
                                              .allow = in.allow,
                                              .free_experts = 0});
      pinned.made = true;
      if (in.statistics == Statistics::collect) collect(ctx, pinned.selection.ids);
    }
    Routing routing;
    routing.weights = gather_slots(ctx, gates, pinned.selection.ids);
    routing.plan = make_plan(ctx, pinned.selection.ids, dims_.all());
    routing.scores = gates.value;
    routing.logits = logits;
    routing.matrix = in_full_precision(weight_);
    return routing;
  }

  void reduce_statistics(const ExecContext& ctx) override {
    if (counts_.defined()) ctx.comm->all_reduce(counts_, ReduceOp::sum);
  }
  void accept_step(const ExecContext& ctx) override {
    if (counts_.defined()) move_bias(ctx.with_tape(nullptr));
    counts_ = {};
  }
  void discard_step() override { counts_ = {}; }
  /// A bias follows from the loads of many steps: those of one pass replace nothing.
  void replace_statistics(const ExecContext&) override { counts_ = {}; }

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
  void collect(const ExecContext& ctx, const Tensor& ids) {
    if (!counts_.defined()) {
      counts_ = ctx.empty({dims_.experts}, bias_.value.dtype(), "router statistics");
      fill(counts_, 0);
    }
    count_slots(ctx, ids, counts_);
  }

  /// The sign is that of Σ loads − E·load_e, whole numbers (exact below 2^24 in f32), and a unit vector of one element.
  void move_bias(const ExecContext& ctx) {
    const int64_t E = dims_.experts;
    const Tensor total = ctx.empty({1}, counts_.dtype());
    column_sum(ctx, {.rows = E, .cols = 1, .stride = 1}, counts_, {total, Accumulate::overwrite});
    const Variable own = scale(ctx, Variable(counts_.reshape({E, 1})), -static_cast<double>(E));
    const Variable sign = l2_normalize(ctx, add_bias(ctx, own, Variable(total)), 0.5);
    column_sum(ctx, {.rows = 1, .cols = E, .stride = E}, scale(ctx, sign, moe_.bias_rate).value, {bias_.value, Accumulate::add});
  }

  MoeConfig moe_;
  ExpertDims dims_;
  Parameter weight_;  // (E, D)
  Buffer bias_;       // (E)
  Tensor counts_;     // (E) slots of each expert in this step
};

}  // namespace

std::unique_ptr<Router> make_bias_balanced_router(const MoeConfig& moe, const ExpertDims& dims, ExpertBank*) {
  return std::make_unique<BiasBalancedRouter>(moe, dims);
}

}  // namespace ermoe
