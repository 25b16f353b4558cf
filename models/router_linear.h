// Routers with learned logits: softmax of x Wᵀ, the K largest probabilities. One class for three of the comparison's
// rules, which differ in noise and loss terms alone:
//   linear      no loss term ("standard routing logits")
//   vmoe        noise on the logits, importance and load losses, optional capacity (V-MoE, arXiv 2106.05974)
//   switch_lbl  the balance loss of the Switch transformer (arXiv 2101.03961), optional z-loss (arXiv 2202.08906)
#pragma once

#include "models/router.h"

namespace ermoe {

class LinearRouter final : public Router {
 public:
  LinearRouter(const MoeConfig& moe, const ExpertDims& dims);

  Routing route(const ExecContext& ctx, const RouterInput& in, PinnedSelection& pinned) override;
  void init(const ExecContext& ctx, RngKey key) override;
  void visit(const std::string& prefix, const Visitor& visitor) override;

 private:
  Variable noisy(const ExecContext& ctx, const Variable& logits) const;
  void apply_capacity(const ExecContext& ctx, const Tensor& ids) const;
  std::vector<LossTerm> loss_terms(const ExecContext& ctx, const Variable& logits, const Variable& noised, const Variable& probabilities,
                                   const Tensor& ids, int64_t images) const;

  MoeConfig moe_;
  ExpertDims dims_;
  Parameter weight_;  // (E, D)
};

}  // namespace ermoe
