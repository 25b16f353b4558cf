#include "tools/config_table.h"

#include "core/error.h"
#include "core/file_io.h"
#include "models/config_rules.h"
#include "models/regions.h"
#include "tools/config_sections.h"

#include <algorithm>
#include <map>
#include <set>

namespace ermoe {
namespace {

void add_data(std::vector<Setting>& table) {
  Section<DataConfig> data(table, "data", [](RunConfig& c) -> DataConfig& { return c.data; });
  data.add("path", &DataConfig::path, "data set: a folder, an archive, or a file of one of the formats in docs/").short_name = "data";
  data.add("max_bad", &DataConfig::max_bad, between(0, 1), "share of unreadable samples at which the run stops");
  data.add("workers", &DataConfig::workers, between(0, 1024), "threads that read and decode; 0: as many as train.threads");
  data.add("decoder", &DataConfig::decoder,
           "of JPEG files; auto: the GPU where it has engines for that and the images are photographs; gpu is refused where it has none");
  data.add("gpu_cache", &DataConfig::gpu_cache, between(0, 1),
           "share of a GPU's free memory for all images, decoded once; 0: none (nor with augment.resized_crop)");
  data.add("mean", &DataConfig::mean, "per channel, for images in [0, 1]; empty: measured on the training images");
  data.add("std", &DataConfig::std, above(0), "per channel, likewise");
  data.add("crop_pct", &DataConfig::crop_pct, between(0.1, 1), "share of the shorter side that the centre crop keeps");
  data.add("limit", &DataConfig::limit, at_least(0), "use the first N training images only; 0: all");
  data.add("overfit", &DataConfig::overfit, at_least(0),
           "train and evaluate on the first N images, unaugmented: a test of the set-up; 0: off")
      .short_name = "overfit";
  data.add("val_share", &DataConfig::val_share, from_to_below(0, 1),
           "part of the training samples held out where the data set has no evaluation split");
  data.add("part", &DataConfig::part, "captions: which part evaluates; auto: val, or test where there is none");
  data.add("table", &DataConfig::table, "volumes: CSV or TSV of subjects with their ages; empty: participants.tsv");
  data.add("volumes", &DataConfig::volumes,
           "volumes: where a subject's lies, as in t1/{participant_id}.nii.gz; empty: as the table's column path says, or as in BIDS");
  data.add("regions", &DataConfig::regions,
           "volumes: where a subject's map of regions lies, with {participant_id}; or one atlas for all; empty: none");
  data.add("cache", &DataConfig::cache,
           "volumes: folder for those prepared where memory cannot hold them, on a disk; empty: $TMPDIR or /var/tmp");
  data.add("spacing", &DataConfig::spacing, between(0.5, 50), "volumes: mm between voxels that they are resampled to");
  data.add("normalize", &DataConfig::normalize, "volumes: what the brain's intensities are brought to");
  data.add("folds", &DataConfig::folds, between(0, 1000), "volumes: parts of a cross-validation, alike in age; 0: none");
  data.add("fold", &DataConfig::fold, between(0, 1000), "volumes: the part that is held out, from 1; 0: each in turn, a run for each");
  data.add("fold_seed", &DataConfig::fold_seed, "volumes: deals subjects out to folds; the same for all runs that are to be compared");
}

void add_model(std::vector<Setting>& table) {
  Section<VitConfig> model(table, "model", [](RunConfig& c) -> VitConfig& { return c.model; });
  model.add("dimensions", &VitConfig::dimensions, between(2, 3), "2: images; 3: volumes, cut into cubes");
  model.add("image_size", &VitConfig::image_size, between(0, 4096), "pixels a side, images are resized to it; 0: as the data");
  model.add("volume", &VitConfig::volume, between(1, 4096),
            "the three sides of volumes that are no cubes, as in 160,192,160; empty: model.image_size");
  model.add("channels", &VitConfig::channels, between(0, 64), "0: as the data");
  model.add("patch", &VitConfig::patch, between(1, 4096), "pixels a side of a patch, which is a square or a cube");
  model.add("patch_margin", &VitConfig::patch_margin, between(0, 4096),
            "pixels around a patch that its token sees too; 0: patches do not overlap");
  model.add("width", &VitConfig::width, between(1, 65536), "width D of a token");
  model.add("depth", &VitConfig::depth, between(1, 1024), "number of blocks");
  model.add("heads", &VitConfig::heads, between(1, 1024), "attention heads; they divide the width");
  model.add("mlp_ratio", &VitConfig::mlp_ratio, {.low = 0, .high = 64, .low_end = End::excluded},
            "hidden width of dense blocks, in units of D");
  model.add("classes", &VitConfig::classes, between(0, 1 << 24),
            "outputs: as many as classes, 1 for a regression, or as many as loss.bins; 0: as the data and the loss want");
  model.add("pool", &VitConfig::pool,
            "what the head reads: the class token, the average of the patches, or all of them side by side with weights for each place");
  model.add("positions", &VitConfig::positions, "position embedding");
  model.add("qk_norm", &VitConfig::qk_norm, "LayerNorm on queries and keys");
  model.add("layer_scale", &VitConfig::layer_scale, at_least(0), "initial scale of each residual branch; 0: none");
  model.add("center_input", &VitConfig::center_input,
            "volumes: take the mean training volume off each: what all brains have in common says nothing");
  model.add("dropout", &VitConfig::dropout, from_to_below(0, 1), "probability");
  model.add("drop_path", &VitConfig::drop_path, from_to_below(0, 1), "stochastic depth of the last block, linear in depth");
  model.add("recompute", &VitConfig::recompute, "keep only block inputs while training: less memory, more time");
  model.add("pre_norm", &VitConfig::pre_norm, "LayerNorm between embeddings and blocks, as CLIP has it");
  model.add("activation", &VitConfig::activation, "of dense networks; quick_gelu is what OpenAI's CLIP was trained with");
  model.add("norm_eps", &VitConfig::norm_eps, {.low = 0, .high = 1, .low_end = End::excluded},
            "of every LayerNorm: 1e-6 as timm's, 1e-5 as CLIP's");
  model.add("patch_bias", &VitConfig::patch_bias, "of the patch embedding: on as timm's, off as CLIP's");
}

void add_text(std::vector<Setting>& table) {
  Section<TextConfig> text(table, "text", [](RunConfig& c) -> TextConfig& { return c.text; });
  text.add("depth", &TextConfig::depth, between(0, 1024),
           "number of blocks of a text tower, with which images and captions learn to find each other; 0: none, images alone");
  Section<RunConfig>(table, "text", [](RunConfig& c) -> RunConfig& { return c; })
      .add("tokenizer", &RunConfig::tokenizer,
           "CLIP's vocab.json with merges.txt in a folder, tokenizer.json, a SentencePiece model, or a checkpoint; empty: that beside "
           "the weights of train.init, or else a vocabulary is learnt");
  text.add("vocabulary", &TextConfig::vocabulary, between(0, 1 << 24),
           "tokens: as many as the tokenizer has (0), or how many to learn from the training captions (0: 4096)");
  text.add("end_token", &TextConfig::end_token, between(-1, 1 << 24), "id that ends a caption; -1: as the tokenizer has");
  text.add("context", &TextConfig::context, between(3, 4096), "tokens of a caption, with its first, its last and its padding");
  text.add("width", &TextConfig::width, between(1, 65536), "width D of a token");
  text.add("heads", &TextConfig::heads, between(1, 1024), "attention heads; they divide the width");
  text.add("mlp_ratio", &TextConfig::mlp_ratio, {.low = 0, .high = 64, .low_end = End::excluded},
           "hidden width of dense blocks, in units of D");
  text.add("moe_layers", &TextConfig::moe_layers, "text blocks with experts, as moe.layers; all else of experts as moe says").check_syntax =
      check_moe_layers_syntax;
}

void add_retrieval(std::vector<Setting>& table) {
  Section<RetrievalConfig> retrieval(table, "retrieval", [](RunConfig& c) -> RetrievalConfig& { return c.retrieval; });
  retrieval.add("projection", &RetrievalConfig::projection, between(1, 65536), "width P of the embeddings that are compared");
  retrieval.add("loss", &RetrievalConfig::loss, "info_nce: softmax over the batch, both ways (CLIP); sigmoid: pair by pair (SigLIP)");
}

void add_experts(Section<MoeConfig>& moe) {
  moe.add("layers", &MoeConfig::layers, "blocks with experts: none, every:N, last:N, or a list as in 1,3,5").check_syntax =
      check_moe_layers_syntax;
  moe.add("router", &MoeConfig::router, "who sends tokens to experts");
  moe.add("expert", &MoeConfig::expert, "factored with orthonormal bases, or plain matrices");
  moe.add("experts", &MoeConfig::experts, between(1, 4096), "scored experts E a layer");
  moe.add("top_k", &MoeConfig::top_k, between(1, 64), "experts K a token");
  moe.add("hidden", &MoeConfig::hidden, between(0, 1 << 20), "hidden width of one expert; 0: 4 D");
  moe.add("rank", &MoeConfig::rank, between(0, 65536), "rank of the factors; 0: full");
  moe.add("orthogonality", &MoeConfig::orthogonality, "what keeps the bases orthonormal");
  moe.add("penalty", &MoeConfig::penalty, at_least(0), "weight of moe.orthogonality penalty");
  moe.add("decay_scales", &MoeConfig::decay_scales, "weight decay on the singular values");
}

void add_routing(Section<MoeConfig>& moe) {
  moe.add("basis", &MoeConfig::basis, "routing basis: V1's leading columns, bases disjoint between experts, or one of its own");
  moe.add("basis_rank", &MoeConfig::basis_rank, between(0, 65536), "columns R of a routing basis, below D; 0: about D/8 (disjoint: D/E)");
  moe.add("score", &MoeConfig::score, "cosine with the attention context, or with the expert's subspace");
  moe.add("context", &MoeConfig::context, "context: the attention's output, or its head-mean over normalised tokens");
  moe.add("center", &MoeConfig::center, "subtract running means before scoring");
  moe.add("standardize", &MoeConfig::standardize, "select by calibrated scores: flat load without a loss term");
  moe.add("momentum", &MoeConfig::momentum, {.low = 0, .high = 1, .low_end = End::excluded}, "of the running statistics");
  Setting& threshold = moe.add("threshold", &MoeConfig::threshold, "lowest score that qualifies: none, a number, or quantile:0.1");
  threshold.kind = Kind::rule;
  threshold.check_syntax = [](const std::string& value) { parse_threshold(value); };
  moe.add("free_experts", &MoeConfig::free_experts, between(0, 4096),
          "unscored experts that take tokens below the threshold, and those that moe.regions keeps from the others");
  Setting& regions =
      moe.add("regions", &MoeConfig::regions,
              "volumes: which labels of the region map each scored expert has, as in 0:1,2;1:3, or a .json file; empty: all");
  regions.check_syntax = [](const std::string& value) { parse_regions(value); };
  // A run keeps the regions themselves: the file may change.
  regions.put = [](RunConfig& c, const Value& value) { c.model.moe.regions = regions_text(parse_regions(std::get<std::string>(value))); };
  moe.add("region_share", &MoeConfig::region_share, from_to_below(0, 1),
          "moe.regions: share of a patch's voxels above which its token may go to an expert of that region");
  moe.add(
      "combine", &MoeConfig::combine,
      "weights of the chosen experts: scores over their sum, a softmax of them, themselves, or their share of a softmax over all experts");
  moe.add("combine_scale", &MoeConfig::combine_scale, {.low = 0, .high = 1000, .low_end = End::excluded},
          "moe.combine softmax, share: what scores are multiplied by at the start; it is learned");
  moe.add("noise", &MoeConfig::noise, at_least(0), "vmoe: deviation of the logits' noise, in units of 1/E");
  moe.add("importance_weight", &MoeConfig::importance_weight, at_least(0), "vmoe: weight of the importance loss");
  moe.add("load_weight", &MoeConfig::load_weight, at_least(0), "vmoe: weight of the load loss");
  moe.add("group_images", &MoeConfig::group_images, at_least(1), "vmoe: images a group of its losses");
  moe.add("capacity_train", &MoeConfig::capacity_train, at_least(0), "vmoe: capacity factor; 0: no token is dropped");
  moe.add("capacity_eval", &MoeConfig::capacity_eval, at_least(0), "vmoe: the same at evaluation");
  moe.add("balance_weight", &MoeConfig::balance_weight, at_least(0), "switch_lbl: weight of the balance loss");
  moe.add("extra_balance", &MoeConfig::extra_balance, at_least(0), "weight of switch_lbl's balance loss beside another router");
  moe.add("z_weight", &MoeConfig::z_weight, at_least(0), "weight of the z-loss on logits, or on ermoe's scores");
  moe.add("gate", &MoeConfig::gate, "bias_balanced: what makes a weight of a logit");
  moe.add("bias_rate", &MoeConfig::bias_rate, at_least(0), "bias_balanced: how far the biases move a step");
  moe.add("cosine_width", &MoeConfig::cosine_width, between(1, 65536), "learned_cosine: width P that tokens are projected to");
  moe.add("cosine_scale", &MoeConfig::cosine_scale, {.low = 0, .high = 100, .low_end = End::excluded},
          "learned_cosine: factor of the cosines at the start; it is learned, up to 100");
  moe.add("soft_slots", &MoeConfig::soft_slots, between(0, 65536),
          "soft: slots P an expert and image; 0: top_k tokens / experts, rounded up, as much work as choosing top_k");
  moe.add("choice_images", &MoeConfig::choice_images, between(0, 1 << 20),
          "expert_choice: images whose tokens an expert chooses among; 0: all of a rank's micro-batch");
  moe.add("simbal_weight", &MoeConfig::simbal_weight, at_least(0), "weight of SimBal's loss, which keeps a router's rows orthonormal");
  moe.add("orthogonal_output_weight", &MoeConfig::orthogonal_output_weight, at_least(0),
          "weight of a loss on the overlap of the outputs of a token's experts");
  moe.add("variance_weight", &MoeConfig::variance_weight, at_least(0), "weight of a loss that spreads each expert's scores over tokens");
  moe.add("replicas", &MoeConfig::replicas, between(0, 4096),
          "copies of loaded experts, with which those share their tokens; ermoe-compress makes them");
}

/// V-MoE's order of claims, EMoE and its adapters, dropped experts, prototypes, factored tensors.
void add_variants(Section<MoeConfig>& moe) {
  moe.add("layer", &MoeConfig::layer, "routed: each token to few experts; cp: a mixture of all, which are factors of one tensor");
  moe.add("cp_rank", &MoeConfig::cp_rank, between(0, 65536), "moe.layer cp: rank of the tensor; 0: as costly as moe.top_k dense experts");
  moe.add("prioritized", &MoeConfig::prioritized, "vmoe: a capacity keeps the tokens of the largest weights, not the first ones");
  moe.add("emoe_rank", &MoeConfig::emoe_rank, between(1, 65536), "emoe: columns of the basis that its experts share; D where that is less");
  moe.add("emoe_temperature", &MoeConfig::emoe_temperature, above(0), "emoe: what logits are divided by");
  moe.add("adapter", &MoeConfig::adapter, between(0, 1 << 20),
          "hidden width of experts beside the dense network, which the class token does not see; 0: they stand in its place");
  moe.add("adapter_scale", &MoeConfig::adapter_scale, above(0), "moe.adapter: factor of what experts add");
  moe.add("expert_dropout", &MoeConfig::expert_dropout, from_to_below(0, 1),
          "share of each cluster's experts that is closed to a batch while training");
  moe.add("expert_clusters", &MoeConfig::expert_clusters, between(1, 4096), "moe.expert_dropout: clusters of neighbouring experts");
  moe.add("prototype_temperature", &MoeConfig::prototype_temperature, above(0), "prototype: what cosines are divided by");
  moe.add("prototype_spectrum", &MoeConfig::prototype_spectrum, at_least(0), "prototype: weight of its spectral penalty");
}

void add_moe(std::vector<Setting>& table) {
  Section<MoeConfig> moe(table, "moe", [](RunConfig& c) -> MoeConfig& { return c.model.moe; });
  add_experts(moe);
  add_routing(moe);
  add_variants(moe);
}

void add_optim(std::vector<Setting>& table) {
  Section<OptimConfig> optim(table, "optim", [](RunConfig& c) -> OptimConfig& { return c.optim; });
  optim.add("lr", &OptimConfig::lr, at_least(0), "peak learning rate");
  optim.add("min_lr", &OptimConfig::min_lr, at_least(0), "learning rate at the end");
  optim.add("beta1", &OptimConfig::beta1, from_to_below(0, 1), "decay of the first moment");
  optim.add("beta2", &OptimConfig::beta2, from_to_below(0, 1), "decay of the second moment");
  optim.add("eps", &OptimConfig::eps, above(0), "added to the root of the second moment");
  optim.add("weight_decay", &OptimConfig::weight_decay, at_least(0), "decoupled, on matrices");
  optim.add("layer_decay", &OptimConfig::layer_decay, {.low = 0, .high = 1, .low_end = End::excluded},
            "learning rate of a block, per block below the last");
  optim.add("factor_lr", &OptimConfig::factor_lr, at_least(0), "learning rate of the experts' orthonormal factors, in units of optim.lr");
  optim.add("clip", &OptimConfig::clip, at_least(0), "largest global gradient norm; 0: off");
  optim.add("schedule", &OptimConfig::schedule, "course of the learning rate after the warm-up");
  optim.add("warmup_steps", &OptimConfig::warmup_steps, at_least(0), "steps of linear ascent");
  optim.add("cooldown_steps", &OptimConfig::cooldown_steps, at_least(0), "steps of linear descent to min_lr at the end");
  optim.add("ema", &OptimConfig::ema, from_to_below(0, 1), "decay of the averaged weights; 0: none");
}

void add_loss(std::vector<Setting>& table) {
  Section<LossConfig> loss(table, "loss", [](RunConfig& c) -> LossConfig& { return c.loss; });
  loss.add("kind", &LossConfig::kind,
           "of classes: softmax cross-entropy, or a sigmoid each; of a number: l1, l2, huber, or soft_labels over loss.bins");
  loss.add("smoothing", &LossConfig::smoothing, from_to_below(0, 1), "share of the target spread over all classes");
  loss.add("class_weights", &LossConfig::class_weights, at_least(0), "one a class; empty: all 1");
  loss.add("delta", &LossConfig::delta, above(0), "huber: error from which it grows linearly, in the target's unit");
  Setting& bins = loss.add("bins", &LossConfig::bins, "soft_labels: low:high or low:high:width in the target's unit, one output a bin");
  bins.check_syntax = [](const std::string& value) { parse_bins(value); };
  loss.add("sigma", &LossConfig::sigma, above(0), "soft_labels: deviation of the normal distribution around the target, in its unit");
  loss.add("target_mean", &LossConfig::target_mean, "l1, l2, huber: the model learns (target - mean) / scale");
  loss.add("target_scale", &LossConfig::target_scale, at_least(0), "l1, l2, huber: 0: mean and deviation of the training targets");
}

void add_volume_augment(Section<AugmentConfig>& augment) {
  augment.add("shift", &AugmentConfig::shift, between(0, 1024), "volumes: move along each axis by up to so many voxels; 0: off");
  augment.add("rotate", &AugmentConfig::rotate, between(0, 180), "volumes: turn around each axis by up to so many degrees");
  augment.add("scale", &AugmentConfig::scale, between(0, 1), "volumes: larger or smaller by up to this share");
  augment.add("gain", &AugmentConfig::gain, between(0, 10), "volumes: brighter or darker by up to this share");
  augment.add("gamma", &AugmentConfig::gamma, between(0, 10), "volumes: exponent of intensities, 1/(1 + this) to 1 + this");
  augment.add("bias", &AugmentConfig::bias, between(0, 10),
              "volumes: smooth field of brightness, the largest coefficient of its logarithm");
  augment.add("noise", &AugmentConfig::noise, between(0, 100),
              "volumes: largest standard deviation of noise inside the head, in the unit of normalised intensities");
}

void add_augment(std::vector<Setting>& table) {
  Section<AugmentConfig> augment(table, "augment", [](RunConfig& c) -> AugmentConfig& { return c.augment; });
  augment.add("crop_padding", &AugmentConfig::crop_padding, between(0, 1024), "pixels of border before a random crop; 0: off");
  augment.add("flip", &AugmentConfig::flip, "mirror half of the images, or volumes, left to right");
  augment.add("resized_crop", &AugmentConfig::resized_crop, "a random part of each image, scaled to model.image_size");
  augment.add("crop_scale", &AugmentConfig::crop_scale, {.low = 0, .high = 1, .low_end = End::excluded},
              "augment.resized_crop: share of the area, from and to");
  augment.add("crop_ratio", &AugmentConfig::crop_ratio, between(0.01, 100), "augment.resized_crop: width over height, from and to");
  augment.add("randaugment_n", &AugmentConfig::randaugment_n, between(0, 16), "RandAugment operations an image; 0: off");
  augment.add("randaugment_m", &AugmentConfig::randaugment_m, between(0, 10), "their strength");
  augment.add("erasing", &AugmentConfig::erasing, between(0, 1), "probability of erasing a random rectangle");
  augment.add("mixup", &AugmentConfig::mixup, at_least(0), "alpha of mixup; 0: off");
  augment.add("cutmix", &AugmentConfig::cutmix, at_least(0), "alpha of cutmix; 0: off");
  augment.add("mix_probability", &AugmentConfig::mix_probability, between(0, 1), "share of batches that are mixed at all");
  augment.add("mix_switch", &AugmentConfig::mix_switch, between(0, 1), "share of cutmix where mixup is on too");
  augment.add("off_epochs", &AugmentConfig::off_epochs, at_least(0), "last epochs without mixup and cutmix");
  add_volume_augment(augment);
}

void add_train(std::vector<Setting>& table) {
  Section<TrainConfig> train(table, "train", [](RunConfig& c) -> TrainConfig& { return c.train; });
  train.add("epochs", &TrainConfig::epochs, at_least(0), "passes over the training images");
  train.add("steps", &TrainConfig::steps, at_least(0), "optimizer steps; 0: as train.epochs says");
  train.add("batch", &TrainConfig::batch, between(1, 1 << 24), "images of one step, over all ranks and micro-batches");
  train.add("accumulate", &TrainConfig::accumulate, between(1, 1 << 20), "micro-batches that a step is split into");
  train.add("graph", &TrainConfig::graph, "on a GPU: record a training step once as a CUDA graph and replay it");
  train.add("eval_batch", &TrainConfig::eval_batch, between(0, 1 << 24), "images at a time at evaluation; 0: as one micro-batch");
  train.add("eval_every", &TrainConfig::eval_every, at_least(0), "steps between evaluations; 0: after every epoch");
  train.add("log_every", &TrainConfig::log_every, at_least(1), "steps between lines of metrics");
  train.add("max_bad_steps", &TrainConfig::max_bad_steps, at_least(0), "non-finite steps in a row that are skipped before the run stops")
      .short_name = "max_bad_steps";
  train.add("seed", &TrainConfig::seed, at_least(0), "of everything random").short_name = "seed";
  train
      .add("threads", &TrainConfig::threads, between(0, 4096),
           "0: the cores that this process may use, shared out among the ranks on the same ones")
      .short_name = "threads";
  train
      .add("device", &TrainConfig::device,
           "auto: a GPU where there is one that the build has code for; cuda is refused where there is none")
      .short_name = "device";
  train.add("precision", &TrainConfig::precision, "what ops compute in; auto: bf16 on a GPU, f32 on a CPU; weights stay f32");
  train.add("out", &TrainConfig::out, "run folder; empty: runs/NAME, or the date and time").short_name = "out";
  train.add("name", &TrainConfig::name, "of the run, for its folder and report");
  Setting& resume = train.add("resume", &TrainConfig::resume, "run folder or checkpoint to go on from, with its settings");
  resume.short_name = "resume";
  resume.saved = Saved::no;
  train.add("init", &TrainConfig::init, "weights to start from: a checkpoint or a .safetensors file").short_name = "init";
  train.add("freeze", &TrainConfig::freeze, "parameters that are not trained: names, with * and ?").short_name = "freeze";
  train.add("purity_every", &TrainConfig::purity_every, at_least(0),
            "steps between measurements of how far the gradients of added losses and of the task agree; 0: none");
  train.add("upcycle", &TrainConfig::upcycle, "experts begin as the dense network that train.init has in their block; false: they are new");
  train.add("upcycle_noise", &TrainConfig::upcycle_noise, between(0, 1), "relative noise on the scales of experts that begin so");
}

void add_checkpoint(std::vector<Setting>& table) {
  Section<CheckpointConfig> checkpoint(table, "checkpoint", [](RunConfig& c) -> CheckpointConfig& { return c.checkpoint; });
  checkpoint.add("every", &CheckpointConfig::every, at_least(0), "steps between checkpoints; 0: after every evaluation");
  checkpoint.add("keep", &CheckpointConfig::keep, at_least(1), "newest ones kept besides the best");
  checkpoint.add("best", &CheckpointConfig::best,
                 "what decides which one is the best; accuracy: of a regression the mean error, of captions rsum");
}

void add_parallel(std::vector<Setting>& table) {
  Section<ParallelConfig> parallel(table, "parallel", [](RunConfig& c) -> ParallelConfig& { return c.parallel; });
  parallel.add("timeout", &ParallelConfig::timeout, between(15, 86400),
               "of several processes: seconds within which the run ends where one of them dies or hangs");
  parallel.add("expert", &ParallelConfig::expert, at_least(1),
               "processes that hold a layer's experts together, each some of them; 1: each process holds all");
  parallel.add(
      "chunks", &ParallelConfig::chunks, at_least(0),
      "parts in which rows travel to experts that other processes hold, one while another's experts compute; 0: 1 on one host, else 4");
  parallel.add("reduce", &ParallelConfig::reduce,
               "what processes add up of experts' gradients: bf16 where the step computes in it by one micro-batch, or f32");
  parallel
      .add("autotune", &ParallelConfig::autotune,
           "of several processes: before training, time some steps with each parallel.expert that can be, and take the fastest")
      .saved = Saved::no;  // what it chose is
}

std::vector<Setting> make_table() {
  std::vector<Setting> table;
  table.reserve(320);  // `add` hands out references
  Section<RunConfig> top(table, "", [](RunConfig& c) -> RunConfig& { return c; });
  top.add("preset", &RunConfig::preset, "complete recipe to start from").short_name = "preset";
  for (const auto add :
       {add_data, add_model, add_moe, add_text, add_retrieval, add_optim, add_loss, add_augment, add_train, add_checkpoint, add_parallel})
    add(table);
  return table;
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> d(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) {
    for (size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        d[i][j] = i + j;
        continue;
      }
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  }
  return d[a.size()][b.size()];
}

/// Keeps the nearest of the names that it is shown.
class Nearest {
 public:
  explicit Nearest(std::string_view name) : name_(name), least_(std::max<size_t>(2, name.size() / 3) + 1) {}

  void consider(std::string_view candidate, const std::string& answer) {
    const size_t distance = edit_distance(name_, candidate);
    if (distance >= least_) return;
    least_ = distance;
    best_ = answer;
  }
  bool exact() const { return least_ == 0; }
  const std::string& best() const { return best_; }

 private:
  std::string_view name_;
  size_t least_;
  std::string best_;
};

constexpr size_t longest_name = 64;

}  // namespace

const std::vector<Setting>& config_table() {
  static const std::vector<Setting> table = make_table();
  return table;
}

const Setting* find_setting(std::string_view name) {
  for (const auto& setting : config_table()) {
    if (setting.key == name || (!setting.short_name.empty() && setting.short_name == name)) return &setting;
  }
  return nullptr;
}

std::string nearest_setting(std::string_view name) {
  if (name.size() > longest_name) return {};
  Nearest nearest(name);
  std::set<std::string> sections;
  for (const auto& setting : config_table()) {
    nearest.consider(setting.key, setting.key);
    if (!setting.short_name.empty()) nearest.consider(setting.short_name, setting.short_name);
    if (!setting.section().empty()) sections.insert(setting.section());
  }
  for (const auto& section : sections) nearest.consider(section, section);
  // "--lr" and "model.top_k" lack only the right section.
  const std::string_view last = name.substr(name.rfind('.') + 1);
  for (const auto& setting : config_table()) {
    if (!nearest.exact() && setting.key.substr(setting.key.rfind('.') + 1) == last && !last.empty()) return setting.key;
  }
  return nearest.best();
}

std::string nearest_name(std::string_view name, const std::vector<std::string>& names) {
  if (name.size() > longest_name) return {};
  Nearest nearest(name);
  for (const std::string& candidate : names) nearest.consider(candidate, candidate);
  return nearest.best();
}

std::string unknown_setting(std::string_view name) {
  const std::string near = nearest_setting(name);
  return fmt::format("{} is not a setting; {}", printable(name), near.empty() ? "--help lists them all" : "did you mean " + near + "?");
}

std::string section_title(std::string_view section) {
  static const std::map<std::string, std::string, std::less<>> titles = {
      {"data", "data: what it is trained on"},
      {"model", "model: the vision transformer"},
      {"moe", "moe: experts and routing"},
      {"optim", "optim: optimizer and learning rate"},
      {"loss", "loss: what is minimised"},
      {"augment", "augment: how training images are varied"},
      {"train", "train: the run itself"},
      {"checkpoint", "checkpoint: what is kept on disk"},
      {"text", "text: the text tower, where images are to find their captions"},
      {"retrieval", "retrieval: how images and captions are compared"},
  };
  const auto found = titles.find(section);
  return found == titles.end() ? std::string(section) : found->second;
}

}  // namespace ermoe
