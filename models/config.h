// Everything that describes a model and its training, as plain structs with defaults. tools/config_table.cpp gives each
// member its flag, JSON key, help and check; nothing else parses or validates them.
#pragma once

#include "models/router_list.h"

#include <cstdint>
#include <string>
#include <vector>

namespace ermoe {

enum class Pool { token, average, flatten };
enum class Positions { learned, sincos };
enum class ExpertKind { eigen, plain };
enum class Orthogonality { newton_schulz, gram_schmidt, cholesky_qr, cayley, penalty, none };
enum class Basis { leading, disjoint, untied };
enum class Score { context_cosine, subspace_cosine };
/// How much each of a token's experts counts, by its score s: max(s, 1e-3)/Σ over the token's own; softmax over these; s itself; or its
/// part of a softmax over all experts, so that a token's weights sum to less than 1.
enum class Combine { normalized, softmax, raw, share };
/// What makes a gate of a logit.
enum class Gate { sigmoid, softmax };
enum class Context { attention, attention_mean };
/// How a block with experts mixes them: by a router and a plan, or all of them by a factored tensor (models/cp_layer.h).
enum class ExpertLayer { routed, cp };
/// Of a dense network; quick_gelu is x·σ(1.702 x), which CLIP's first weights were trained with.
enum class Activation { gelu, quick_gelu };
/// What a model's last matrix is: one that tells classes apart, or a projection without bias (models/dual_encoder.h).
enum class Head { classes, projection };
/// With a bias, as timm's patch embedding, or without, as CLIP's.
enum class PatchBias { on, off };

/// Which blocks carry experts: "none", "every:2" (blocks 1, 3, …), "last:3", or a list "1,3,5".
using MoeLayers = std::string;
/// "none", a number ("0.2"), or "quantile:0.1".
using Threshold = std::string;

struct MoeConfig {
  MoeLayers layers = "every:2";
  RouterKind router = RouterKind::ermoe;
  ExpertKind expert = ExpertKind::eigen;
  int64_t experts = 8;  // E, scored experts
  int64_t top_k = 2;    // K
  int64_t hidden = 0;   // F of one expert; 0: 4 D
  int64_t rank = 0;     // r of the factors; 0: full, min(F, D)
  Orthogonality orthogonality = Orthogonality::newton_schulz;
  double penalty = 5e-5;      // λ of Orthogonality::penalty
  bool decay_scales = false;  // weight decay on s
  // Eigenbasis routing
  Basis basis = Basis::disjoint;
  int64_t basis_rank = 0;  // R; 0: D/E for disjoint ones, D/8 to a multiple of 8 for others
  Score score = Score::subspace_cosine;
  Context context = Context::attention;
  bool center = true;
  bool standardize = true;
  double momentum = 0.05;  // of the running means, deviations and histogram
  Threshold threshold = "none";
  int64_t free_experts = 0;
  std::string regions;        // "0:1,2;1:3": labels of each scored expert's region (models/regions.h); empty: no mask
  double region_share = 0.1;  // of a patch's voxels, above which it covers a region
  Combine combine = Combine::share;
  double combine_scale = 10.0;  // softmax, share: what scores are multiplied by at the start; learned from there
  // Routers with logits
  double noise = 1.0;  // vmoe: standard deviation of the logits' noise, in units of 1/E
  double importance_weight = 0.005;
  double load_weight = 0.005;
  int64_t group_images = 8;   // vmoe: images a group of its balance loss
  double capacity_train = 0;  // vmoe: capacity factor; 0: dropless
  double capacity_eval = 0;
  double balance_weight = 0.01;  // α of switch_lbl
  double extra_balance = 0.0;    // the same loss beside any other router
  double z_weight = 0.0;
  Gate gate = Gate::sigmoid;   // bias_balanced
  double bias_rate = 1e-3;     // γ of bias_balanced: how far its biases move a step
  int64_t cosine_width = 256;  // P of learned_cosine
  double cosine_scale = 2.0;   // of its cosines, at the start
  // V-MoE's order of claims, EMoE and its adapters, dropped experts, prototypes, factored tensors
  bool prioritized = false;            // vmoe: a capacity keeps the tokens of the largest weights, not the first ones
  int64_t emoe_rank = 128;             // columns of emoe's shared basis; D where that is less
  double emoe_temperature = 1.0;       // τ of emoe
  int64_t adapter = 0;                 // hidden width of experts beside the dense network; 0: they stand in its place
  double adapter_scale = 1.0;          // α of what they add
  double expert_dropout = 0.0;         // share of each cluster's experts that is closed to a batch while training
  int64_t expert_clusters = 1;         // C, of neighbouring experts
  double prototype_temperature = 0.1;  // τ of prototype
  double prototype_spectrum = 0.01;    // weight of its spectral penalty
  ExpertLayer layer = ExpertLayer::routed;
  int64_t cp_rank = 0;  // R of the factored tensors of `cp`; 0: as many operations as K dense experts take
  // Routers where experts, not tokens, have a fixed number of rows
  int64_t soft_slots = 0;     // soft: P, slots an expert; 0: K·T/E, rounded up
  int64_t choice_images = 0;  // expert_choice: images whose tokens an expert chooses among; 0: all of a rank's micro-batch
  // Loss terms beside any router (models/added_losses.h), and what tools/ermoe_compress.cpp makes
  double simbal_weight = 0.0;             // of ‖RᵀR − I‖₁, R the router's matrix
  double orthogonal_output_weight = 0.0;  // of the overlap of a token's experts' outputs
  double variance_weight = 0.0;           // of minus the scores' variance over tokens
  int64_t replicas = 0;                   // n, copies of the most loaded experts, ids after all others: they share those experts' tokens
};

struct VitConfig {
  int64_t dimensions = 2;       // 2: images; 3: volumes, whose patches are cubes
  int64_t image_size = 32;      // pixels a side of a square, voxels of a cube
  std::vector<int64_t> volume;  // the three sides of a volume that is no cube, with image_size 0; empty: image_size
  int64_t channels = 3;
  int64_t patch = 4;         // P
  int64_t patch_margin = 0;  // M: a patch has the M pixels around it too
  int64_t width = 192;       // D
  int64_t depth = 8;         // L
  int64_t heads = 6;         // H
  double mlp_ratio = 4.0;    // F / D of dense blocks
  int64_t classes = 10;      // Y: outputs; 1 for a regression, or as many as loss.bins
  Pool pool = Pool::token;
  Positions positions = Positions::learned;
  bool qk_norm = false;
  double layer_scale = 0;     // initial γ; 0: none
  bool center_input = false;  // the mean of the training inputs is taken off each, voxel by voxel: what all have in common says nothing
  double dropout = 0;
  double drop_path = 0;    // stochastic depth, linear in depth up to this
  bool recompute = false;  // keep only block inputs while training
  MoeConfig moe;
  bool pre_norm = false;  // a LayerNorm between embeddings and blocks
  Activation activation = Activation::gelu;
  double norm_eps = 1e-6;  // of every LayerNorm: timm's; CLIP's is 1e-5
  PatchBias patch_bias = PatchBias::on;
  Head head = Head::classes;  // not a setting: a dual encoder's image tower is given the other one
};

/// The text transformer of a dual encoder. What it shares with the image tower (activation, norm_eps, recompute, and all of its experts
/// but where they stand) is said there.
struct TextConfig {
  int64_t vocabulary = 0;  // V; 0: as the tokenizer has
  int64_t end_token = -1;  // the id after which a caption is padding; -1: as the tokenizer has
  int64_t context = 77;    // W, tokens of a caption with its first, its last and its padding
  int64_t width = 512;     // D
  int64_t depth = 12;      // L
  int64_t heads = 8;       // H
  double mlp_ratio = 4.0;  // F / D of dense blocks
  MoeLayers moe_layers = "none";
};

enum class PairLoss { info_nce, sigmoid };

struct RetrievalConfig {
  int64_t projection = 512;  // P, width of the embeddings that images and captions are compared by
  PairLoss loss = PairLoss::info_nce;
};

enum class Schedule { cosine, linear, constant, rsqrt };

struct OptimConfig {
  double lr = 1e-3;
  double min_lr = 1e-5;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0.05;
  double layer_decay = 1.0;  // learning rate of a block times this per block below the last
  double factor_lr = 1.0;    // learning rate of orthonormal factors, in units of lr
  double clip = 1.0;         // global gradient norm; 0: off
  Schedule schedule = Schedule::cosine;
  int64_t warmup_steps = 0;
  int64_t cooldown_steps = 0;  // linear descent to min_lr at the end
  double ema = 0;              // decay of the averaged weights; 0: none
};

enum class LossKind { cross_entropy, sigmoid, l1, l2, huber, soft_labels };

/// "low:high" or "low:high:width" in the target's unit: "10:100" are 90 bins of 1.
using BinRule = std::string;

struct LossConfig {
  LossKind kind = LossKind::cross_entropy;
  double smoothing = 0.0;
  std::vector<double> class_weights;  // empty: all 1
  double delta = 1.0;                 // huber: where its square becomes a line, in the target's unit
  BinRule bins = "10:100";            // soft_labels: one output a bin
  double sigma = 1.0;                 // soft_labels: deviation of the target around its number, in the target's unit
  // l1, l2, huber: the model's output is (number - mean) / scale. Scale 0: still to be read off the training targets.
  double target_mean = 0.0;
  double target_scale = 1.0;
};

}  // namespace ermoe
