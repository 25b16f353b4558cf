// The mixture-of-experts layer: a router, its experts, and the path between them (dispatch, expert networks, combine). It stands in the
// place of a block's dense network, or adds to what the block makes (models/vit.cpp).
// Read next: models/router.h, models/experts.h.
#pragma once

#include "models/experts.h"
#include "models/router.h"

#include <functional>
#include <memory>
#include <optional>

namespace ermoe {

/// What one MoE layer did in one forward pass: read by the metrics and by pictures.
struct RoutingRecord {
  int64_t block = 0;
  RoutingPlan plan;
  Tensor scores;          // (N, E)
  Tensor weights;         // (N, K)
  Tensor fallback;        // (N, K) u8: slots that no qualified expert filled
  Tensor nonfinite;       // (1) i32: 1 where any score was not finite
  bool soft = false;      // an expert's load is the sum of its weights, not the number of its slots
  Tensor countable = {};  // (N, E) u8: a row of zeros is padding, which no metric takes in; undefined: there is none
};

/// What travels along a forward pass beside the activations.
struct ForwardPass {
  Tensor allow;  // (N, E) u8 mask of experts; undefined: everything is allowed
  /// With `allow` of rows that are all 1 or all 0: leave_out, where the latter are padding, which no statistics take in.
  ClosedTokens closed = ClosedTokens::count;
  double loss_weight = 1.0;         // d(total)/d(loss term): 1 / micro-batches; 0: terms are told and have no gradient
  std::string only_loss;            // of the terms, the one with a gradient; empty: all
  bool collect_statistics = false;  // also outside training: statistics for averaged weights
  bool shuffle_experts = false;     // sends each token to the next expert instead: does routing matter?
  /// Called on the way back when the gradients of all parameters from this depth on are complete: 0 embeddings, 1 … L blocks.
  std::function<void(int64_t depth)> gradients_ready;
  std::vector<RoutingRecord> routes;
  std::vector<std::pair<int64_t, Tensor>> mixtures;    // of layers that route nothing: block, and (E) the mean coefficient of each expert
  std::vector<std::pair<std::string, Tensor>> losses;  // name and value () of every added term
};

class MoeLayer final : public Module {
 public:
  /// The experts of block number `block` of a model whose settings fit together.
  MoeLayer(const VitConfig& model, int64_t block);

  /// x (B, T, D) -> (B, T, D). `c` is the router's context (undefined where wants_context() is false).
  Variable forward(const ExecContext& ctx, const Variable& x, const Variable& c, ForwardPass& pass, PinnedSelection& pinned);

  bool wants_context() const { return router_->wants_context(); }
  Context context() const { return context_; }
  const ExpertDims& dims() const { return dims_; }
  ExpertBank& experts() { return *experts_; }
  Router& router() { return *router_; }
  int64_t block() const { return block_; }

  /// From here on this rank has a part of the experts alone; see ExpertBank::share_out.
  void share_out(const ExpertShare& share, bool saves_held);
  /// What is made by each rank for its own experts and gathered.
  std::vector<GatheredParameter*> gathered();

  void refresh(const ExecContext& ctx);
  void pull_back(const ExecContext& ctx);
  /// After the optimizer changed the factors, before refresh.
  void after_step(const ExecContext& ctx);
  void init(const ExecContext& ctx, RngKey key);
  void visit(const std::string& prefix, const Visitor& visitor) override;

 private:
  Tensor open_experts(const ExecContext& ctx, const Tensor& allow, int64_t tokens) const;
  RoutingRecord record_of(const ExecContext& ctx, const RouterInput& in, const Routing& routing, const Selection& selection) const;
  Variable run_experts(const ExecContext& ctx, const Variable& rows, const RoutingPlan& plan);

  ExpertDims dims_;
  MoeConfig moe_;  // what losses are added beside the router's own, and which experts are closed
  Context context_;
  int64_t block_;
  std::unique_ptr<Router> router_;
  std::unique_ptr<ExpertBank> experts_;
  Buffer replica_of_;  // (replicas) the expert that each is a copy of
};

}  // namespace ermoe
