#include "models/summary.h"

#include "models/config_rules.h"

#include <algorithm>

namespace ermoe {
namespace {

/// FLOPs a step of an expert bank at rank r: W (2 products), its gradients (4), tangent step and retraction of four factors.
double factor_flops(const MoeLayer& layer, const MoeConfig& moe) {
  const ExpertDims& d = layer.dims();
  if (moe.expert == ExpertKind::plain) return 0;
  const double D = static_cast<double>(d.width), F = static_cast<double>(d.hidden), r = static_cast<double>(d.rank);
  const double products = 2 * 2 * F * D * r;   // W1, W2
  const double gradients = 2 * 4 * F * D * r;  // dU, dV of both
  const double per_factor = 4 * 2 * r * r;     // QᵀA, Q·sym, QᵀQ, Q·R, a row of Q each
  const double manifold = keeps_orthonormal(moe.orthogonality) ? per_factor * 2 * (F + D) : 0;
  return static_cast<double>(d.all()) * (products + gradients + manifold);
}

}  // namespace

ModelSummary summarize(Vit& model) {
  const VitConfig& c = model.config();
  const double D = static_cast<double>(c.width), T = static_cast<double>(model.tokens());
  const double patches = T - static_cast<double>(model.prefix_tokens());
  ModelSummary s;
  int64_t inactive = 0;
  for (const Parameter* p : parameters_of(model)) {
    if (p->role != Parameter::Role::derived) s.parameters += p->whole_shape().numel();
    if (p->role == Parameter::Role::direct) s.active_parameters += p->whole_shape().numel();
  }
  s.forward_flops = 2 * patches * static_cast<double>(patch_weight_shape(c).numel()) +
                    2 * (c.pool == Pool::flatten ? T : 1) * D * static_cast<double>(c.classes);
  s.forward_flops += static_cast<double>(c.depth) * (2 * T * 4 * D * D + 4 * T * T * D);
  const auto layers = model.moe_layers();
  const auto mixed = model.cp_layers();
  for (const CpLayer* layer : mixed) s.forward_flops += T * layer->flops();
  const bool beside = c.moe.adapter > 0;  // experts add to the dense network, which stays
  const auto dense = static_cast<double>(c.depth) - (beside ? 0 : static_cast<double>(layers.size() + mixed.size()));
  const auto routed = static_cast<double>(model.routed_tokens());
  s.forward_flops += dense * 4 * T * D * static_cast<double>(static_cast<int64_t>(c.mlp_ratio * D));
  for (MoeLayer* layer : layers) {
    const ExpertDims& d = layer->dims();
    const int64_t expert = 2 * d.width * d.hidden + d.width + d.hidden;
    if (layer->experts().eigen()) s.active_parameters += d.all() * 2 * d.width * d.hidden;  // what factors make
    const Parameter* const basis = layer->router().common_factor();
    s.active_parameters += basis != nullptr ? basis->whole_shape().numel() : d.experts * d.basis_rank * d.width;
    if (d.slots == 0) inactive += (d.all() - std::min(c.moe.top_k, d.all())) * expert;
    const double rows = d.slots > 0 ? static_cast<double>(d.experts * d.slots) : static_cast<double>(c.moe.top_k) * routed;
    s.forward_flops += rows * 4 * D * static_cast<double>(d.hidden);
    s.scoring_flops += routed * layer->router().scoring_flops();
    s.step_flops += factor_flops(*layer, c.moe);
  }
  s.forward_flops += s.scoring_flops;
  s.active_parameters -= inactive;
  return s;
}

}  // namespace ermoe
