// Eigenbasis routing: a token goes where it and its context point the same way, seen in the expert's own basis.
// s = cos(B_eᵀ x, B_eᵀ c) (ERMoE, arXiv 2511.10971), with the calibration that makes the load flat without a loss term.
#pragma once

#include "models/config_rules.h"
#include "models/gathered_parameter.h"
#include "models/router.h"
#include "ops/router_stats.h"

namespace ermoe {

class ErmoeRouter final : public Router {
 public:
  /// `shared_basis` is owned by the layer where the basis is disjoint; `experts` is null where it is untied.
  ErmoeRouter(const MoeConfig& moe, const ExpertDims& dims, ExpertBank* experts);

  /// The shared or untied basis parameter; null where the basis is the experts' own.
  Parameter* basis_parameter() { return moe_.basis == Basis::leading ? nullptr : &own_basis_; }
  void set_experts(ExpertBank* experts) { experts_ = experts; }

  bool wants_context() const override { return moe_.score == Score::context_cosine; }
  void share_out(const ExpertShare& share) override;
  GatheredParameter* gathered() override { return moe_.basis == Basis::leading ? &packed_ : nullptr; }
  Parameter* common_factor() override { return basis_parameter(); }
  Routing route(const ExecContext& ctx, const RouterInput& in, PinnedSelection& pinned) override;
  void refresh(const ExecContext& ctx) override;
  void pull_back(const ExecContext& ctx) override;
  void add_penalties(const ExecContext& ctx) override;
  void reduce_statistics(const ExecContext& ctx) override;
  void accept_step(const ExecContext& ctx) override;
  void discard_step() override;
  void replace_statistics(const ExecContext& ctx) override;
  void init(const ExecContext& ctx, RngKey key) override;
  double scoring_flops() const override;
  void visit(const std::string& prefix, const Visitor& visitor) override;

  /// The packed basis (E, R, D): what subspace overlap is measured on.
  Tensor packed_basis() { return packed_.parameter().value; }

 private:
  Variable score(const ExecContext& ctx, const Variable& x, const Variable& c);
  Selection select(const ExecContext& ctx, const Tensor& scores, const Tensor& allow, const Tensor& threshold);
  Tensor threshold(const ExecContext& ctx) const;
  /// Weights (N, K) of the chosen, of scores (N, E).
  Variable weigh(const ExecContext& ctx, const Variable& s, const PinnedSelection& pinned);
  bool has_temperature() const { return moe_.combine == Combine::softmax || moe_.combine == Combine::share; }
  void update_statistics(const ExecContext& ctx, double momentum);
  RouterStats stats() const;

  MoeConfig moe_;
  ExpertDims dims_;
  ExpertBank* experts_;
  ThresholdRule rule_;
  Parameter own_basis_;                                                    // disjoint: (D, E·R); untied: (E, D, R)
  GatheredParameter packed_{Reach::all};                                   // (E, R, D)
  Parameter temperature_;                                                  // (1), combine softmax and share
  Buffer mean_x_, mean_c_, score_mean_, score_var_, histogram_, updates_;  // zero until a step was accepted
  Tensor sums_;                                                            // of this step, f64
  ClosedTokens closed_ = ClosedTokens::count;                              // as they were collected
};

}  // namespace ermoe
