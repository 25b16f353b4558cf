// Routing by the energy of a token along the axes of one orthonormal basis that all experts of a layer share (EMoE, arXiv 2601.12137,
// known here by its abstract and second-hand notes):
//   z = Qᵀx,  e_j = z_j² / (Σ z² + 1e-6)     Q (D, r) with orthonormal columns, r = moe.emoe_rank, or D where that is less
//   m = softmax over experts of M            M (r, E), kept with an axis of Q a row
//   l_e = Σ_j γ_j m_je e_j + b_e             γ (r), b (E)
//   p = softmax(l / τ)                       τ = moe.emoe_temperature
// The K largest of l are chosen, K 1 in the source; their weights are p, not renormalised. Q is stepped and retracted as experts' factors
// are (moe.orthogonality). Chosen where the notes are silent: M starts standard normal, γ at 1, b at 0, Q random; M decays, as matrices
// do. The source has its experts as adapters beside the dense network: moe.adapter.
#include "models/derived.h"
#include "models/router.h"
#include "models/svd.h"
#include "ops/add.h"
#include "ops/cast.h"
#include "ops/energy_share.h"
#include "ops/gather_slots.h"
#include "ops/layer_scale.h"
#include "ops/leading_basis.h"
#include "ops/linear.h"
#include "ops/matmul.h"
#include "ops/scale.h"
#include "ops/softmax.h"
#include "ops/tokens.h"

#include <algorithm>

namespace ermoe {
namespace {

constexpr double energy_floor = 1e-6;  // added to Σ z²

class EmoeRouter final : public Router {
 public:
  EmoeRouter(const MoeConfig& moe, const ExpertDims& dims) : moe_(moe), dims_(dims), rank_(std::min(moe.emoe_rank, dims.width)) {
    basis_.shape = {dims.width, rank_};
    basis_.role = Parameter::Role::factor;
    basis_.orthonormal = keeps_orthonormal(moe.orthogonality);
    packed_.parameter.shape = {rank_, dims.width};
    mixing_.shape = {rank_, dims.experts};
    mixing_.decay = true;
    gamma_.shape = {rank_};
    bias_.shape = {dims.experts};
    for (Parameter* p : {&mixing_, &gamma_, &bias_}) p->full_precision = true;  // what is compared is f32
  }

  Parameter* common_factor() override { return &basis_; }

  Routing route(const ExecContext& ctx, const RouterInput& in, PinnedSelection& pinned) override {
    const Variable z = cast(ctx, linear(ctx, in.x, packed_.parameter, Variable()), mixing_.value.dtype());  // (N, r)
    const Variable energies = layer_scale(ctx, energy_share(ctx, z, energy_floor), gamma_);
    const Variable sums = add_bias(ctx, matmul(ctx, energies, softmax(ctx, mixing_)), bias_);  // (N, E)
    const Variable logits = moe_.emoe_temperature == 1 ? sums : scale(ctx, sums, 1 / moe_.emoe_temperature);
    if (!pinned.made) {
      pinned.selection = select_experts(
          ctx, {.scores = logits.value, .order = {}, .slots = moe_.top_k, .threshold = {}, .allow = in.allow, .free_experts = 0});
      pinned.made = true;
    }
    Routing routing;
    routing.logits = logits;
    routing.probabilities = softmax(ctx, logits);
    routing.weights = gather_slots(ctx, routing.probabilities, pinned.selection.ids);
    routing.plan = make_plan(ctx, pinned.selection.ids, dims_.all());
    routing.scores = routing.probabilities.value;
    return routing;
  }

  /// The basis as ops read it, a column of Q a row.
  void refresh(const ExecContext& ctx) override {
    packed_.refresh(ctx, [&](const ExecContext& c) {
      const Variable column = reshape(c, basis_, {1, dims_.width, rank_});
      return reshape(c, leading_basis(c, column, rank_), {rank_, dims_.width});
    });
  }
  void pull_back(const ExecContext& ctx) override { packed_.pull_back(ctx); }
  void add_penalties(const ExecContext& ctx) override {
    if (moe_.orthogonality == Orthogonality::penalty) add_penalty(ctx, basis_, moe_.penalty);
  }

  void init(const ExecContext& ctx, RngKey key) override {
    init_orthonormal(ctx, basis_.value, key_of(key, basis_.name));
    fill_normal(mixing_.value, 1, key_of(key, mixing_.name));
    fill(gamma_.value, 1);
    fill(bias_.value, 0);
  }
  double scoring_flops() const override { return 2.0 * static_cast<double>(rank_ * (dims_.width + dims_.experts)); }
  void visit(const std::string& prefix, const Visitor& visitor) override {
    visitor(join(prefix, "basis"), basis_);
    visitor(join(prefix, "packed_basis"), packed_.parameter);
    visitor(join(prefix, "mixing"), mixing_);
    visitor(join(prefix, "gamma"), gamma_);
    visitor(join(prefix, "bias"), bias_);
  }

 private:
  MoeConfig moe_;
  ExpertDims dims_;
  int64_t rank_;             // r
  Parameter basis_;          // (D, r)
  DerivedParameter packed_;  // (r, D)
  Parameter mixing_;         // (r, E)
  Parameter gamma_;          // (r)
  Parameter bias_;           // (E)
};

}  // namespace

std::unique_ptr<Router> make_emoe_router(const MoeConfig& moe, const ExpertDims& dims, ExpertBank*) {
  return std::make_unique<EmoeRouter>(moe, dims);
}

}  // namespace ermoe
