// What the settings of a model mean where they are left open or are written as a small rule, and which of them do not
// go together. The one place for it: layers, reports and programs ask here. Read next: models/config_rules.cpp.
#pragma once

#include "core/shape.h"
#include "models/config.h"
#include "ops/bin_targets.h"

#include <cstdint>
#include <string>
#include <vector>

namespace ermoe {

/// The blocks that carry experts, ascending, of a model of `depth` blocks. Throws InputError on a fault in the rule.
std::vector<int64_t> moe_blocks(const MoeLayers& layers, int64_t depth);

/// Throws InputError unless `layers` is a rule at all; whether its blocks exist depends on the depth.
void check_moe_layers_syntax(const MoeLayers& layers);

struct ThresholdRule {
  enum class Kind { none, number, quantile };
  Kind kind = Kind::none;
  double value = 0;  // T, or the share of the slots that falls back, in (0, 1)
};

/// Throws InputError where `threshold` is neither "none", nor a finite number, nor "quantile:q" with q in (0, 1).
ThresholdRule parse_threshold(const Threshold& threshold);

/// Experts of each cluster that are closed to a batch while training (moe.expert_dropout); 0: none.
int64_t dropped_experts(const MoeConfig& moe);

/// F of one expert.
int64_t expert_hidden(const VitConfig& model);
/// r of the factors.
int64_t factor_rank(const VitConfig& model);
/// R of the routing basis: as given; else D/E for disjoint bases and D/8 rounded to a multiple of 8 (at least 8) for
/// the others, never above r or D - 1.
int64_t basis_rank(const VitConfig& model);

/// R of a layer `cp`: as given; else K·D·F/(D + F), at least 1, at which it takes the operations of K dense experts, scoring apart.
int64_t cp_rank(const VitConfig& model);
/// P of soft routing: as given; else top_k · tokens / experts, rounded up, at least 1.
int64_t soft_slots(const VitConfig& model);

/// Sides of an image (2) or a volume (3), in elements; 0 where they are still to be read off the data.
Shape image_sides(const VitConfig& model);
/// What a model of `batch` images takes: (B, C, side, side[, side]).
Shape input_shape(const VitConfig& model, int64_t batch);
/// Patches along each of these sides; tokens count them with the last side fastest.
Shape patch_grid(const VitConfig& model);
/// T: patches, and the class token where there is one.
int64_t tokens_of(const VitConfig& model);
/// Those that have experts: experts beside the dense network see the patches alone.
int64_t routed_tokens(const VitConfig& model);
/// (D, C, P, P[, P]), as a convolution of that many dimensions is stored.
Shape patch_weight_shape(const VitConfig& model);

/// True where targets are numbers to come close to, not classes.
bool is_regression(LossKind kind);

/// Throws InputError unless `bins` is "low:high" or "low:high:width" with a whole number of bins, 2 to 4096.
Bins parse_bins(const BinRule& bins);

/// Outputs that a model for this loss wants: 1, or as many as bins; 0 where that is the number of classes, which the data know.
int64_t outputs_of(const LossConfig& loss);

/// Throws InputError naming the keys that cannot be had together; returns warnings about settings that are allowed but
/// odd. Image size, channels and classes may still be 0 (read off the data later): their checks wait.
std::vector<std::string> check_model(const VitConfig& model);

/// What the text tower's blocks are built by, beside an image tower.
VitConfig text_blocks(const VitConfig& image, const TextConfig& text);

/// `check_model` of a text tower; its vocabulary and end token may still be open.
std::vector<std::string> check_text(const VitConfig& image, const TextConfig& text);

}  // namespace ermoe
