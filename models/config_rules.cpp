#include "models/config_rules.h"

#include "core/enum_names.h"
#include "core/error.h"
#include "models/regions.h"
#include "models/router.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <string_view>

namespace ermoe {
namespace {

std::optional<int64_t> parse_count(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value < 0) return std::nullopt;
  return value;
}

std::optional<double> parse_finite(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || !std::isfinite(value)) return std::nullopt;
  return value;
}

struct LayerRule {
  enum class Kind { none, every, last, list };
  Kind kind = Kind::none;
  int64_t n = 0;
  std::vector<int64_t> blocks;
};

LayerRule parse_layers(std::string_view text) {
  const auto refuse = [&] { fail_input("must be none, every:N, last:N or a list of blocks as in 1,3,5, not \"{}\"", text.substr(0, 60)); };
  LayerRule rule;
  if (text == "none") return rule;
  for (const auto& [prefix, kind] : {std::pair{"every:", LayerRule::Kind::every}, std::pair{"last:", LayerRule::Kind::last}}) {
    if (!text.starts_with(prefix)) continue;
    const auto n = parse_count(text.substr(std::string_view(prefix).size()));
    if (!n || *n < 1) refuse();
    rule.kind = kind;
    rule.n = *n;
    return rule;
  }
  rule.kind = LayerRule::Kind::list;
  for (std::string_view rest = text;;) {
    const size_t comma = rest.find(',');
    const auto block = parse_count(rest.substr(0, comma));
    if (!block) refuse();
    rule.blocks.push_back(*block);
    if (comma == std::string_view::npos) return rule;
    rest.remove_prefix(comma + 1);
  }
}

void check_sides(const VitConfig& m) {
  check_input(m.dimensions == 2 || m.dimensions == 3, "model.dimensions must be 2 (images) or 3 (volumes), not {}", m.dimensions);
  check_input(m.image_size >= 0, "model.image_size: {} pixels a side", m.image_size);
  if (!m.volume.empty()) {
    check_input(m.dimensions == 3, "model.volume gives the sides of volumes, but model.dimensions is {}", m.dimensions);
    check_input(m.volume.size() == 3, "model.volume wants 3 sides as in 160,192,160, not {}", m.volume.size());
    check_input(m.image_size == 0, "model.volume cannot be given beside model.image_size {}, which is for cubes", m.image_size);
    check_input(std::ranges::all_of(m.volume, [](int64_t side) { return side > 0; }), "model.volume: {} voxels have an empty side",
                fmt::join(m.volume, "x"));
  }
  const Shape sides = image_sides(m);
  check_input(std::ranges::all_of(sides, [&](int64_t side) { return side % m.patch == 0; }),
              "model.patch: images of {} pixels do not split into patches of {} a side", fmt::join(sides, "x"), m.patch);
}

void check_shape(const VitConfig& m) {
  check_input(m.width % m.heads == 0, "model.heads: {} heads do not divide model.width {}", m.heads, m.width);
  check_sides(m);
  const int64_t parts = 2 * m.dimensions;
  check_input(m.positions != Positions::sincos || m.width % parts == 0,
              "model.positions: sincos in {} dimensions needs a model.width divisible by {}, not {}", m.dimensions, parts, m.width);
}

void check_basis(const VitConfig& m) {
  const MoeConfig& moe = m.moe;
  const int64_t D = m.width, E = moe.experts, r = factor_rank(m), R = basis_rank(m);
  check_input(moe.expert == ExpertKind::eigen || moe.basis == Basis::untied,
              "moe.basis: {} bases are columns of an eigen-expert's V1; with moe.expert plain choose untied", enum_name(moe.basis));
  check_input(R >= 1, "moe.basis_rank: {} experts are too many to share model.width {} in disjoint bases; choose moe.basis leading", E, D);
  check_input(R != D,
              "moe.basis_rank: R = D = {} gives no routing signal, because in a full orthogonal basis every expert would get the same "
              "score cos(x,c); choose less",
              D);
  check_input(R < D, "moe.basis_rank: {} lies above model.width {}; a routing basis has fewer columns than that", R, D);
  check_input(moe.basis == Basis::untied || R <= r, "moe.basis_rank: {} lies above the rank {} of the factors (moe.rank)", R, r);
  check_input(moe.basis != Basis::disjoint || E * R <= D,
              "moe.basis_rank: disjoint bases of {} experts times {} columns do not fit into model.width {}; those of moe.basis leading "
              "may overlap",
              E, R, D);
}

/// Routers by which every expert has the same number of rows.
void check_load_of_experts(const MoeConfig& moe) {
  const bool soft = moe.router == RouterKind::soft, choice = moe.router == RouterKind::expert_choice;
  check_input(soft || moe.soft_slots == 0, "moe.soft_slots: only with moe.router soft experts have slots, not with {}",
              enum_name(moe.router));
  check_input(choice || moe.choice_images == 0, "moe.choice_images: only with moe.router expert_choice experts choose, not with {}",
              enum_name(moe.router));
  if (!soft && !choice) return;
  check_input(moe.threshold == "none", "moe.threshold: with moe.router {} no score has to qualify", enum_name(moe.router));
  check_input(moe.extra_balance == 0, "moe.extra_balance: with moe.router {} every expert has the same load, which no loss can even out",
              enum_name(moe.router));
  check_input(moe.orthogonal_output_weight == 0, "moe.orthogonal_output_weight: with moe.router {} tokens have no fixed number of experts",
              enum_name(moe.router));
  if (!soft) return;
  check_input(moe.variance_weight == 0, "moe.variance_weight: with moe.router soft tokens have no probabilities of experts");
  check_input(moe.expert_dropout == 0, "moe.expert_dropout: with moe.router soft every token sees all experts, so none can be closed");
  check_input(moe.replicas == 0, "moe.replicas: with moe.router soft every expert has as many rows, so no copy would have any to take");
}

void check_router(const MoeConfig& moe) {
  const bool scored = moe.router == RouterKind::ermoe;
  check_input(scored || moe.free_experts == 0, "moe.free_experts: only moe.router ermoe has free experts, not {}", enum_name(moe.router));
  check_input(moe.top_k <= moe.experts + moe.free_experts, "moe.top_k: {} experts a token are more than the {} there are (moe.experts{})",
              moe.top_k, moe.experts + moe.free_experts, moe.free_experts > 0 ? " and moe.free_experts" : "");
  const bool capacity = moe.capacity_train > 0 || moe.capacity_eval > 0;
  check_input(!capacity || moe.router == RouterKind::vmoe, "moe.capacity_{}: only moe.router vmoe has a capacity, not {}",
              moe.capacity_train > 0 ? "train" : "eval", enum_name(moe.router));
  check_input(moe.extra_balance == 0 || moe.router != RouterKind::switch_lbl,
              "moe.extra_balance: moe.router switch_lbl has this loss by itself; moe.balance_weight is its weight");
  check_load_of_experts(moe);
  check_input(moe.extra_balance == 0 || moe.free_experts == 0,
              "moe.extra_balance: {} free experts (moe.free_experts) have no probability that a balance loss could even out",
              moe.free_experts);
  check_input(moe.replicas == 0 || moe.expert == ExpertKind::plain,
              "moe.replicas: only plain experts have copies (moe.expert), which ermoe-compress makes");
  check_input(moe.orthogonal_output_weight == 0 || moe.top_k > 1,
              "moe.orthogonal_output_weight: with moe.top_k 1 a token has one expert, whose output overlaps with no other's");
}

void check_claims(const MoeConfig& moe) {
  if (!moe.prioritized) return;
  check_input(moe.router == RouterKind::vmoe, "moe.prioritized: only moe.router vmoe has a capacity that tokens could claim, not {}",
              enum_name(moe.router));
  check_input(moe.capacity_train > 0 || moe.capacity_eval > 0,
              "moe.prioritized: without moe.capacity_train or moe.capacity_eval no token is dropped, so no order of claims matters");
}

void check_dropped_experts(const MoeConfig& moe) {
  const int64_t E = moe.experts, C = moe.expert_clusters;
  check_input(E % C == 0, "moe.expert_clusters: {} clusters do not divide moe.experts {}", C, E);
  if (moe.expert_dropout == 0) return;
  const int64_t dropped = dropped_experts(moe);
  check_input(dropped >= 1, "moe.expert_dropout: {} of a cluster of {} experts (moe.experts over moe.expert_clusters) is not one expert",
              moe.expert_dropout, E / C);
  const int64_t left = E - C * dropped + moe.free_experts;
  check_input(moe.top_k <= left, "moe.expert_dropout: {} leaves {} experts open to a batch, fewer than moe.top_k {}", moe.expert_dropout,
              left, moe.top_k);
  check_input(moe.router != RouterKind::bias_balanced,
              "moe.expert_dropout: moe.router bias_balanced would move its biases against experts that were merely closed");
}

void check_adapter(const VitConfig& m) {
  if (m.moe.adapter == 0) return;
  check_input(m.moe.hidden == 0, "moe.hidden: experts beside the dense network have the width {} of moe.adapter; give 0 here, not {}",
              m.moe.adapter, m.moe.hidden);
  check_input(m.moe.regions.empty(),
              "moe.regions: maps of regions go with experts in the place of the dense network, not with moe.adapter");
}

/// Of a layer in which every token takes a mixture of all experts.
void check_mixed(const MoeConfig& moe) {
  check_input(moe.adapter == 0, "moe.adapter: moe.layer cp stands in the place of the dense network; adapters go with routed");
  check_input(moe.expert_dropout == 0, "moe.expert_dropout: moe.layer cp mixes all experts; only those of routed can be closed");
  check_input(moe.regions.empty(), "moe.regions: moe.layer cp mixes all experts; only those of routed can be kept to regions");
  check_input(moe.free_experts == 0, "moe.free_experts: moe.layer cp has none, for it sends tokens nowhere");
  const std::pair<const char*, double> losses[] = {{"extra_balance", moe.extra_balance},
                                                   {"z_weight", moe.z_weight},
                                                   {"simbal_weight", moe.simbal_weight},
                                                   {"orthogonal_output_weight", moe.orthogonal_output_weight},
                                                   {"variance_weight", moe.variance_weight}};
  for (const auto& [name, weight] : losses)
    check_input(weight == 0, "moe.{}: moe.layer cp has no router that a loss could be added to", name);
}

void check_regions(const VitConfig& m) {
  const MoeConfig& moe = m.moe;
  if (moe.regions.empty()) return;
  Regions regions;
  try {
    regions = parse_regions(moe.regions);
  } catch (const InputError& e) {
    fail_input("moe.regions: {}", e.what());
  }
  check_input(m.dimensions == 3, "moe.regions: maps of regions go with volumes (model.dimensions 3), not with images");
  check_input(moe.router == RouterKind::ermoe,
              "moe.regions: only moe.router ermoe has free experts, which tokens outside of all regions want, not {}",
              enum_name(moe.router));
  check_input(moe.free_experts >= 1, "moe.free_experts: moe.regions wants one at least, where tokens outside of all regions go");
  check_input(std::ssize(regions) <= moe.experts, "moe.regions: expert {} does not exist; moe.experts {} are 0 to {}", regions.size() - 1,
              moe.experts, moe.experts - 1);
  regions.resize(static_cast<size_t>(moe.experts));
  const auto bare = std::ranges::find_if(regions, [](const auto& labels) { return labels.empty(); });
  check_input(bare == regions.end(), "moe.regions: expert {} of moe.experts {} has no labels, so no token could go to it",
              bare - regions.begin(), moe.experts);
}

std::vector<std::string> router_warnings(const MoeConfig& moe) {
  std::vector<std::string> warnings;
  if (moe.router == RouterKind::expert_choice && moe.choice_images != 1)
    warnings.emplace_back("moe.router expert_choice without moe.choice_images 1: an image's result depends on the others of its batch");
  if (moe.router != RouterKind::ermoe) return warnings;
  if (moe.top_k == 1 && moe.combine == Combine::normalized) {
    warnings.emplace_back("moe.top_k 1 with moe.combine normalized: the weight is the constant 1 and the router gets no gradient");
  }
  if (parse_threshold(moe.threshold).kind != ThresholdRule::Kind::none && moe.free_experts == 0 && !moe.standardize) {
    warnings.emplace_back("moe.threshold changes nothing without moe.free_experts or moe.standardize: the next best scores fill in");
  }
  if (!moe.regions.empty() && parse_threshold(moe.threshold).kind == ThresholdRule::Kind::none && moe.combine != Combine::softmax) {
    warnings.emplace_back(
        "moe.regions without moe.threshold: a free expert enters with a score of 0, so beside a regional one it weighs next to nothing");
  }
  return warnings;
}

}  // namespace

void check_moe_layers_syntax(const MoeLayers& layers) { parse_layers(layers); }

std::vector<int64_t> moe_blocks(const MoeLayers& layers, int64_t depth) {
  LayerRule rule;
  try {
    rule = parse_layers(layers);
  } catch (const InputError& e) {
    fail_input("moe.layers: {}", e.what());
  }
  check_input(rule.n <= depth, "moe.layers: {} does not fit into model.depth {}", layers, depth);
  std::vector<int64_t> blocks = rule.blocks;
  if (rule.kind == LayerRule::Kind::every) {
    for (int64_t b = rule.n - 1; b < depth; b += rule.n) blocks.push_back(b);
  }
  if (rule.kind == LayerRule::Kind::last) {
    for (int64_t b = depth - rule.n; b < depth; ++b) blocks.push_back(b);
  }
  std::sort(blocks.begin(), blocks.end());
  check_input(std::adjacent_find(blocks.begin(), blocks.end()) == blocks.end(), "moe.layers: {} names a block twice", layers);
  check_input(blocks.empty() || blocks.back() < depth, "moe.layers: block {} does not exist in a model of model.depth {} (0 to {})",
              blocks.empty() ? 0 : blocks.back(), depth, depth - 1);
  return blocks;
}

ThresholdRule parse_threshold(const Threshold& threshold) {
  if (threshold == "none") return {};
  const std::string_view text = threshold, prefix = "quantile:";
  const bool quantile = text.starts_with(prefix);
  const auto value = parse_finite(quantile ? text.substr(prefix.size()) : text);
  check_input(value.has_value(), "must be none, a number as in 0.2, or quantile:q as in quantile:0.1, not \"{}\"", text.substr(0, 60));
  check_input(!quantile || (*value > 0 && *value < 1), "the q of quantile:q must lie between 0 and 1, both excluded, not {}", *value);
  return {quantile ? ThresholdRule::Kind::quantile : ThresholdRule::Kind::number, *value};
}

int64_t dropped_experts(const MoeConfig& moe) {
  const double share = moe.expert_dropout * static_cast<double>(moe.experts / moe.expert_clusters);
  return static_cast<int64_t>(std::floor(share + 1e-9));  // 0.1 of 10 is 1, whatever rounding says
}

int64_t expert_hidden(const VitConfig& model) {
  if (model.moe.adapter > 0) return model.moe.adapter;
  return model.moe.hidden > 0 ? model.moe.hidden : 4 * model.width;
}

int64_t factor_rank(const VitConfig& model) { return model.moe.rank > 0 ? model.moe.rank : std::min(expert_hidden(model), model.width); }

int64_t basis_rank(const VitConfig& model) {
  const int64_t D = model.width, r = factor_rank(model);
  if (model.moe.basis_rank > 0) return model.moe.basis_rank;
  if (model.moe.basis == Basis::disjoint) return std::min({D / model.moe.experts, r, D - 1});
  const int64_t eighth = std::max<int64_t>(8, (D + 32) / 64 * 8);  // D/8 to the nearest multiple of 8
  return std::min({eighth, r, D - 1});
}

int64_t cp_rank(const VitConfig& model) {
  if (model.moe.cp_rank > 0) return model.moe.cp_rank;
  const int64_t D = model.width, F = expert_hidden(model);
  return std::max<int64_t>(1, model.moe.top_k * D * F / (D + F));
}

Shape image_sides(const VitConfig& model) {
  if (!model.volume.empty()) return Shape(model.volume);
  const int64_t side = model.image_size;
  return model.dimensions == 3 ? Shape{side, side, side} : Shape{side, side};
}

Shape input_shape(const VitConfig& model, int64_t batch) {
  std::vector<int64_t> sizes = {batch, model.channels};
  const Shape sides = image_sides(model);
  sizes.insert(sizes.end(), sides.begin(), sides.end());
  return Shape(sizes);
}

Shape patch_grid(const VitConfig& model) {
  Shape grid = image_sides(model);
  for (int axis = 0; axis < grid.rank(); ++axis) grid = grid.with(axis, grid[axis] / model.patch);
  return grid;
}

int64_t tokens_of(const VitConfig& model) { return patch_grid(model).numel() + (model.pool == Pool::token ? 1 : 0); }

int64_t routed_tokens(const VitConfig& model) { return model.moe.adapter > 0 ? patch_grid(model).numel() : tokens_of(model); }

int64_t soft_slots(const VitConfig& model) {
  if (model.moe.soft_slots > 0) return model.moe.soft_slots;
  return std::max<int64_t>(1, (model.moe.top_k * routed_tokens(model) + model.moe.experts - 1) / model.moe.experts);
}

Shape patch_weight_shape(const VitConfig& model) {
  const int64_t D = model.width, C = model.channels, side = model.patch + 2 * model.patch_margin;
  return model.dimensions == 3 ? Shape{D, C, side, side, side} : Shape{D, C, side, side};
}

bool is_regression(LossKind kind) { return kind != LossKind::cross_entropy && kind != LossKind::sigmoid; }

Bins parse_bins(const BinRule& bins) {
  const std::string_view text = bins;
  const size_t first = text.find(':'), second = first == std::string_view::npos ? first : text.find(':', first + 1);
  const auto refuse = [&] { fail_input("must be low:high or low:high:width as in 10:100 or 10:100:2, not \"{}\"", text.substr(0, 60)); };
  if (first == std::string_view::npos) refuse();
  const auto low = parse_finite(text.substr(0, first)), high = parse_finite(text.substr(first + 1, second - first - 1));
  const auto width = second == std::string_view::npos ? std::optional<double>(1) : parse_finite(text.substr(second + 1));
  if (!low || !high || !width || !(*width > 0) || !(*low < *high)) refuse();
  const double count = std::round((*high - *low) / *width);
  check_input(count >= 2 && count <= 4096 && std::abs(*low + count * *width - *high) <= 1e-9 * (*high - *low),
              "\"{}\" is no whole number of bins, or not from 2 to 4096 of them", text.substr(0, 60));
  return {.low = *low, .width = *width, .count = static_cast<int64_t>(count)};
}

int64_t outputs_of(const LossConfig& loss) {
  if (!is_regression(loss.kind)) return 0;
  return loss.kind == LossKind::soft_labels ? parse_bins(loss.bins).count : 1;
}

namespace {

/// Says of what is wrong that it is the text tower's.
template <typename Fn>
auto of_text(const Fn& fn) {
  try {
    return fn();
  } catch (const InputError& e) {
    fail_input("of the text tower, {}", e.what());
  }
}

}  // namespace

VitConfig text_blocks(const VitConfig& image, const TextConfig& text) {
  VitConfig blocks;
  blocks.width = text.width;
  blocks.depth = text.depth;
  blocks.heads = text.heads;
  blocks.mlp_ratio = text.mlp_ratio;
  blocks.activation = image.activation;
  blocks.norm_eps = image.norm_eps;
  blocks.recompute = image.recompute;
  blocks.moe = image.moe;
  blocks.moe.layers = text.moe_layers;
  return blocks;
}

std::vector<std::string> check_text(const VitConfig& image, const TextConfig& text) {
  const MoeConfig& moe = image.moe;
  check_input(text.width % text.heads == 0, "text.heads: {} heads do not divide text.width {}", text.heads, text.width);
  check_input(text.vocabulary == 0 || text.end_token < text.vocabulary,
              "text.end_token: {} is no token of a vocabulary of {} "
              "(text.vocabulary)",
              text.end_token, text.vocabulary);
  if (of_text([&] { return moe_blocks(text.moe_layers, text.depth); }).empty()) return {};
  check_input(moe.layer == ExpertLayer::routed,
              "text.moe_layers: moe.layer cp mixes experts for padding too; only routed ones go with text");
  check_input(moe.router != RouterKind::soft, "text.moe_layers: moe.router soft mixes all tokens of a caption, the padding too");
  check_input(moe.context == Context::attention,
              "text.moe_layers: moe.context attention_mean looks at what follows a token; text wants attention");
  check_input(moe.free_experts == 0, "text.moe_layers: free experts (moe.free_experts) would take the padding");
  check_input(moe.adapter == 0, "text.moe_layers: experts beside the dense network (moe.adapter) go with images alone");
  check_input(moe.replicas == 0, "text.moe_layers: copies of experts (moe.replicas) go with images alone");
  return of_text([&] { return check_model(text_blocks(image, text)); });
}

std::vector<std::string> check_model(const VitConfig& model) {
  check_shape(model);
  const MoeConfig& moe = model.moe;
  if (moe_blocks(moe.layers, model.depth).empty()) return {};
  check_input(model.activation == Activation::gelu || moe.adapter > 0,
              "model.activation: experts compute gelu, so {} goes with dense blocks alone (moe.layers none)", enum_name(model.activation));
  if (moe.layer == ExpertLayer::cp) {
    check_mixed(moe);
    return {};
  }
  try {
    parse_threshold(moe.threshold);
  } catch (const InputError& e) {
    fail_input("moe.threshold: {}", e.what());
  }
  check_router(moe);
  check_claims(moe);
  check_dropped_experts(moe);
  check_adapter(model);
  check_regions(model);
  const int64_t full = std::min(expert_hidden(model), model.width);
  check_input(moe.expert != ExpertKind::eigen || factor_rank(model) <= full,
              "moe.rank: {} lies above {}, the smaller of an expert's hidden width and model.width", factor_rank(model), full);
  if (moe.router == RouterKind::ermoe) check_basis(model);
  check_input(moe.z_weight == 0 || make_router(moe, expert_dims(model), nullptr)->has_logits(),
              "moe.z_weight: the logits of moe.router {} are bounded by construction, so a z-loss has nothing to hold down",
              enum_name(moe.router));
  check_input(moe.simbal_weight == 0 || make_router(moe, expert_dims(model), nullptr)->has_matrix(),
              "moe.simbal_weight: moe.router {} has no matrix with a row for each expert that could be kept orthonormal",
              enum_name(moe.router));
  return router_warnings(moe);
}

}  // namespace ermoe
