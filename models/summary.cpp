#include "models/summary.h"

#include "models/config_rules.h"

#include <algorithm>
#include <vector>

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

/// Of one tower, whose tokens all go through its blocks.
struct Tower {
  const VitConfig& blocks;  // width, depth, dense networks, experts
  double tokens = 0, routed = 0;
  std::vector<MoeLayer*> layers;
  std::vector<CpLayer*> mixed;
};

/// Attention, dense networks and experts.
void add_blocks(const Tower& t, ModelSummary& s) {
  const VitConfig& c = t.blocks;
  const double D = static_cast<double>(c.width), T = t.tokens;
  double flops = static_cast<double>(c.depth) * (2 * T * 4 * D * D + 4 * T * T * D);
  for (const CpLayer* layer : t.mixed) flops += T * layer->flops();
  const bool beside = c.moe.adapter > 0;  // experts add to the dense network, which stays
  const auto dense = static_cast<double>(c.depth) - (beside ? 0 : static_cast<double>(t.layers.size() + t.mixed.size()));
  flops += dense * 4 * T * D * static_cast<double>(static_cast<int64_t>(c.mlp_ratio * D));
  double scoring = 0;
  for (MoeLayer* layer : t.layers) {
    const ExpertDims& d = layer->dims();
    const int64_t expert = 2 * d.width * d.hidden + d.width + d.hidden;
    if (layer->experts().eigen()) s.active_parameters += d.all() * 2 * d.width * d.hidden;  // what factors make
    const Parameter* const basis = layer->router().common_factor();
    s.active_parameters += basis != nullptr ? basis->whole_shape().numel() : d.experts * d.basis_rank * d.width;
    if (d.slots == 0) s.active_parameters -= (d.all() - std::min(c.moe.top_k, d.all())) * expert;
    const double rows = d.slots > 0 ? static_cast<double>(d.experts * d.slots) : static_cast<double>(c.moe.top_k) * t.routed;
    flops += rows * 4 * D * static_cast<double>(d.hidden);
    scoring += t.routed * layer->router().scoring_flops();
    s.step_flops += factor_flops(*layer, c.moe);
  }
  s.scoring_flops += scoring;
  s.forward_flops += flops + scoring;
}

void count_parameters(Module& model, ModelSummary& s) {
  for (const Parameter* p : parameters_of(model)) {
    if (p->role != Parameter::Role::derived) s.parameters += p->whole_shape().numel();
    if (p->role == Parameter::Role::direct) s.active_parameters += p->whole_shape().numel();
  }
}

/// Patches, blocks and head.
void add_image_tower(Vit& model, ModelSummary& s) {
  const VitConfig& c = model.config();
  const double D = static_cast<double>(c.width), T = static_cast<double>(model.tokens());
  const double patches = T - static_cast<double>(model.prefix_tokens());
  s.forward_flops += 2 * patches * static_cast<double>(patch_weight_shape(c).numel()) +
                     2 * (c.pool == Pool::flatten ? T : 1) * D * static_cast<double>(c.classes);
  add_blocks({.blocks = c,
              .tokens = T,
              .routed = static_cast<double>(model.routed_tokens()),
              .layers = model.moe_layers(),
              .mixed = model.cp_layers()},
             s);
}

}  // namespace

ModelSummary summarize(Vit& model) {
  ModelSummary s;
  count_parameters(model, s);
  add_image_tower(model, s);
  return s;
}

ModelSummary summarize(DualEncoder& model) {
  const TextConfig& text = model.config().text;
  const VitConfig blocks = text_blocks(model.config().image, text);
  const auto W = static_cast<double>(text.context);
  ModelSummary s;
  count_parameters(model, s);
  add_image_tower(model.image(), s);
  add_blocks({.blocks = blocks, .tokens = W, .routed = W, .layers = model.text().moe_layers(), .mixed = {}}, s);
  s.forward_flops += 2 * static_cast<double>(text.width * model.config().retrieval.projection);
  return s;
}

ModelSummary summarize(Model& model) {
  if (auto* const dual = dynamic_cast<DualEncoder*>(&model)) return summarize(*dual);
  return summarize(dynamic_cast<Vit&>(model));
}

}  // namespace ermoe
