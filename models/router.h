// A router decides which experts see which tokens. Every router is one file behind this interface; the layer above
// (models/moe.h) does not know which one it has. Read next: models/router_ermoe.cpp.
#pragma once

#include "models/config.h"
#include "models/experts.h"
#include "models/module.h"
#include "ops/router_stats.h"
#include "ops/routing_plan.h"
#include "ops/select_experts.h"

#include <memory>
#include <string>
#include <vector>

namespace ermoe {

/// Whether a pass adds to the routers' running statistics or only reads them.
enum class Statistics { read, collect };

/// What a router sees.
struct RouterInput {
  Variable x;             // (N, D) the experts' input tokens
  Variable c;             // (N, D) their context; undefined unless wants_context()
  int64_t images = 1;     // B; the tokens of an image lie side by side, and some rules work image by image
  Tensor allow;           // (N, E) u8, 1 where a token may go to an expert; undefined: everywhere
  Tensor countable = {};  // alike, without what is closed to this batch alone: whose scores running statistics take in
  Statistics statistics = Statistics::read;
  ClosedTokens closed = ClosedTokens::count;  // whether statistics take in tokens that `countable` closes altogether
};

/// How much each of the tokens counts in a loss term's means, of so many groups (ops/token_weights.h); undefined: all alike, for none is
/// padding.
Tensor weights_of_tokens(const ExecContext& ctx, const RouterInput& in, int64_t groups = 1);

/// A term that a router adds to the loss.
struct LossTerm {
  std::string name;
  Variable value;  // scalar, weight included
};

/// What a router answers: a plan in CSR form with a weight a slot (it holds K experts a token, missing slots and expert choice alike).
/// Routing that is not hard adds dense tensors: the plan is then of B·S rows in place of tokens, each with its one expert.
struct Routing {
  RoutingPlan plan;
  Variable weights;        // (N, K); soft routing: (B·S, 1), all 1
  Variable dispatch;       // (B, S, T) soft routing: what the experts see is dispatch · x of each image; S = experts · slots an expert
  Variable combine;        // (B, T, S) soft routing: output = combine · what the experts make of it
  Variable logits;         // (N, E) what a z-loss holds down; undefined where they are bounded by construction
  Variable probabilities;  // (N, E) what a balance loss evens out; undefined: softmax of the logits
  Variable matrix;         // (E, P) in full precision, a row an expert: what SimBal's loss keeps orthonormal; undefined: there is none
  std::vector<LossTerm> losses;
  Tensor scores;  // (N, E) for the metrics; the router's own measure. Soft routing: the weight of each expert in a token's output
  bool soft() const { return dispatch.defined(); }
};

/// A selection that must not be made twice: recomputation re-uses it.
struct PinnedSelection {
  Selection selection;
  Tensor threshold;  // (1) or undefined
  bool made = false;
  // As the pass had them then: a pass over two towers has some for each.
  Tensor allow = {};
  ClosedTokens closed = ClosedTokens::count;
};

class Router : public Module {
 public:
  /// True where `RouterInput::c` is read.
  virtual bool wants_context() const { return false; }

  /// From here on this rank's experts have that part of the factors alone. Before memory is given to parameters.
  virtual void share_out(const ExpertShare&) {}
  /// What is made of the experts' factors and gathered over all ranks; null: nothing.
  virtual GatheredParameter* gathered() { return nullptr; }
  /// A factor that all ranks step alike, of whose gradient each has a part after `pull_back`; null: none.
  virtual Parameter* common_factor() { return nullptr; }

  /// Routes one micro-batch. With `pinned.made` the selection is taken from there, else stored there.
  virtual Routing route(const ExecContext& ctx, const RouterInput& in, PinnedSelection& pinned) = 0;

  // Hooks of the training step, in this order; see models/train_step.h.
  virtual void refresh(const ExecContext&) {}            // factors changed: remake what is derived from them
  virtual void pull_back(const ExecContext&) {}          // derived gradients to their factors
  virtual void add_penalties(const ExecContext&) {}      // when the gradients of `common_factor` are whole
  virtual void reduce_statistics(const ExecContext&) {}  // sums what was collected over all ranks
  virtual void accept_step(const ExecContext&) {}        // the step counts: update running statistics
  virtual void discard_step() {}                         // it does not: forget what was collected
  /// Replaces the running statistics by what was collected, for weights that they do not belong to (averaged ones).
  virtual void replace_statistics(const ExecContext&) {}

  virtual void init(const ExecContext& ctx, RngKey key) = 0;

  /// False where `Routing::logits` stays undefined, since they are bounded by construction: no z-loss then.
  virtual bool has_logits() const { return true; }
  /// Whether `route` sets `Routing::matrix`.
  virtual bool has_matrix() const { return false; }
  /// Floating-point operations of scoring one token, 2 a multiply-add: what choosing costs beside the experts.
  virtual double scoring_flops() const = 0;
};

/// Makes the router that `moe` names. `experts` is known to routers that are tied to their factors; it outlives the router.
std::unique_ptr<Router> make_router(const MoeConfig& moe, const ExpertDims& dims, ExpertBank* experts);

// What makes each of them, in its own file.
#define ERMOE_DECLARE_ROUTER(name) \
  std::unique_ptr<Router> make_##name##_router(const MoeConfig& moe, const ExpertDims& dims, ExpertBank* experts);
ERMOE_ROUTERS(ERMOE_DECLARE_ROUTER)
#undef ERMOE_DECLARE_ROUTER

}  // namespace ermoe
