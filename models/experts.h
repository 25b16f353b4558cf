// The experts of one layer: two-layer GELU networks, either plain (W1, W2 are parameters) or eigen (W = U diag(s) Vᵀ with
// orthonormal U and V; ERMoE, arXiv 2511.10971). Read next: models/router.h.
#pragma once

#include "models/config.h"
#include "models/expert_share.h"
#include "models/gathered_parameter.h"
#include "models/matrix_bundle.h"
#include "models/module.h"
#include "ops/join_basis.h"
#include "ops/orthogonal_step.h"
#include "ops/routing_plan.h"
#include "ops/spread_mlp.h"

namespace ermoe {

/// Sizes of a layer's experts, all settings resolved.
struct ExpertDims {
  int64_t width = 0;         // D
  int64_t hidden = 0;        // F
  int64_t experts = 0;       // E, scored
  int64_t free_experts = 0;  // ids E … E + free - 1
  int64_t rank = 0;          // r
  int64_t basis_rank = 0;    // R
  int64_t slots = 0;         // P of an image, where experts have slots
  int64_t replicas = 0;      // ids behind all others

  int64_t all() const { return experts + free_experts + replicas; }
  int64_t first_replica() const { return experts + free_experts; }
};

/// Sizes of the experts of a model whose settings fit together (models/config_rules.h).
ExpertDims expert_dims(const VitConfig& model);

/// The factors of both matrices, here of all experts. With a disjoint basis the first R columns of a scored expert's V1 belong to the
/// router's shared basis, and V1 here is the rest.
struct EigenFactors {
  Parameter U1;       // (E+Ef, F, r)
  Parameter s1;       // (E+Ef, r)
  Parameter V1;       // (E+Ef, D, r); disjoint: (E, D, r - R)
  Parameter free_V1;  // (Ef, D, r), only where disjoint and Ef > 0
  Parameter U2;       // (E+Ef, D, r)
  Parameter s2;       // (E+Ef, r)
  Parameter V2;       // (E+Ef, F, r)
};

class ExpertBank final : public Module {
 public:
  /// `shared_basis`: the router's (D, E·R) parameter where the basis is disjoint, else null. It must outlive this.
  ExpertBank(const MoeConfig& moe, const ExpertDims& dims, Parameter* shared_basis);

  /// From here on this rank has that part of the experts alone. Parameters have their new shapes; their memory is the caller's
  /// business (Vit::move_to). `saves_held`: whether it writes what its replica ranks hold too into checkpoints.
  void share_out(const ExpertShare& share, bool saves_held);

  /// rows (M, D) sorted by expert as `plan`, of the held experts, says -> (M, D): W2 gelu(W1 x + b1) + b2 of each row's expert.
  Variable forward(const ExecContext& ctx, const Variable& rows, const RoutingPlan& plan);
  /// The same of rows of all experts, which travel to the ranks that hold them and back.
  Variable forward(const ExecContext& ctx, const Variable& rows, const RowTravel& travel);

  /// What is made from parameters alone, for who makes it together with other layers' (models/matrix_bundle.h): W1 and W2 of eigen
  /// experts, but for W1 where V1 has a part in the router's basis.
  std::vector<FactoredMatrix> factored();
  /// Makes what `factored` leaves out, after init, load and every optimizer step.
  void refresh(const ExecContext& ctx);
  /// Turns the gradient of what `refresh` makes into those of the factors; adds the penalty's to all where that is the mode.
  void pull_back(const ExecContext& ctx);
  /// After the optimizer's step: with a disjoint basis, takes the rest's columns off the shared ones.
  void after_step(const ExecContext& ctx);

  const ExpertDims& dims() const { return dims_; }
  const ExpertShare& share() const { return share_; }
  bool eigen() const { return kind_ == ExpertKind::eigen; }
  EigenFactors& factors() { return factors_; }
  /// Both matrices of eigen experts, for who gathers them and sums up their gradients.
  std::vector<GatheredParameter*> gathered();
  /// V1 of this rank's experts (own, D, r), on the context's tape.
  Variable right_factor(const ExecContext& ctx);

  void init(const ExecContext& ctx, RngKey key);
  void visit(const std::string& prefix, const Visitor& visitor) override;

 private:
  void declare_factors(const MoeConfig& moe);
  BasisPart basis_part() const;
  void init_from_svd(const ExecContext& ctx, RngKey key);

  ExpertKind kind_;
  Orthogonality orthogonality_;
  double penalty_weight_;
  ExpertDims dims_;
  ExpertShare share_;
  Parameter* shared_basis_;
  EigenFactors factors_;               // of the own experts
  GatheredParameter W1_{Reach::held};  // (held, F, D); plain experts train it directly, and W2
  GatheredParameter W2_{Reach::held};  // (held, D, F)
  Parameter b1_, b2_;                  // (held, F), (held, D)
};

/// Adds the gradient of weight · ‖QᵀQ - I‖² to p's; nothing where p is frozen.
void add_penalty(const ExecContext& ctx, Parameter& p, double weight);

/// The method of the orthogonal step, for the modes that take one.
StiefelMethod stiefel_method(Orthogonality mode);
/// True for the four modes that keep factors orthonormal.
bool keeps_orthonormal(Orthogonality mode);

}  // namespace ermoe
