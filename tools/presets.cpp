#include "tools/presets.h"

#include "core/error.h"
#include "core/file_io.h"
#include "core/json.h"
#include "tools/config_io.h"

#include <nlohmann/json.hpp>

#include <array>
#include <vector>

namespace ermoe {
namespace {

// Minutes are enough for a few passes only. Then a narrow model that sees each image more often beats a wide one, sin-cos
// positions spare it learning where patches lie, and varied images cost more than they give. Weight decay, which the
// experts' factors are spared, and a modest learning rate move work to the experts: without them a short run leaves them idle.
constexpr std::string_view kFashionMnist = R"({
  "model": {"image_size": 28, "channels": 1, "classes": 10, "patch": 4, "width": 48, "depth": 4, "heads": 4, "pool": "average",
            "positions": "sincos"},
  "moe": {"layers": "every:2", "experts": 8, "top_k": 2, "hidden": 128},
  "optim": {"lr": 1.5e-3, "min_lr": 1e-5, "beta2": 0.99, "weight_decay": 0.2, "warmup_steps": 200, "schedule": "cosine"},
  "loss": {"smoothing": 0.05},
  "augment": {"crop_padding": 0, "flip": false},
  "train": {"epochs": 10, "batch": 128, "name": "fashion-mnist"}
})";

// For some thousand images. Crops are small, since larger ones slow a short run down.
constexpr std::string_view kCifar10Small = R"({
  "model": {"image_size": 32, "channels": 3, "classes": 10, "patch": 4, "width": 64, "depth": 4, "heads": 4, "pool": "average",
            "positions": "sincos"},
  "moe": {"layers": "every:2", "experts": 8, "top_k": 2, "hidden": 128},
  "optim": {"lr": 1.5e-3, "min_lr": 1e-5, "beta2": 0.99, "weight_decay": 0.2, "warmup_steps": 100, "schedule": "cosine"},
  "loss": {"smoothing": 0.1},
  "augment": {"crop_padding": 2, "flip": true},
  "train": {"epochs": 40, "batch": 128, "name": "cifar10-small"}
})";

// For one H100, seven minutes. Patches that reach over their neighbours and wide dense blocks give most; of experts the last block's
// cost the fewest steps. Variation is strong, and only the last epochs see whole images.
constexpr std::string_view kCifar10 = R"({
  "model": {"image_size": 32, "channels": 3, "classes": 10, "patch": 4, "patch_margin": 2, "width": 256, "depth": 7, "heads": 4,
            "mlp_ratio": 4, "pool": "average", "positions": "sincos", "drop_path": 0.1},
  "moe": {"layers": "last:1", "experts": 8, "top_k": 2, "hidden": 1024,
          "basis": "leading", "score": "context_cosine", "combine": "normalized"},
  "optim": {"lr": 5e-4, "min_lr": 1e-5, "weight_decay": 0.06, "warmup_steps": 1950, "schedule": "cosine", "clip": 1.0, "ema": 0.9995},
  "loss": {"smoothing": 0.1},
  "augment": {"crop_padding": 4, "flip": true, "randaugment_n": 2, "randaugment_m": 9, "mixup": 0.8, "cutmix": 1.0,
              "mix_probability": 0.8, "mix_switch": 0.5, "off_epochs": 30},
  "train": {"epochs": 480, "batch": 256, "eval_batch": 1000, "eval_every": 3900, "log_every": 97, "name": "cifar10"},
  "checkpoint": {"keep": 1}
})";

// The same model in about a minute: too short for much variation.
constexpr std::string_view kCifar10Smoke = R"({
  "model": {"image_size": 32, "channels": 3, "classes": 10, "patch": 4, "patch_margin": 2, "width": 256, "depth": 7, "heads": 4,
            "mlp_ratio": 4, "pool": "average", "positions": "sincos", "drop_path": 0.1},
  "moe": {"layers": "last:1", "experts": 8, "top_k": 2, "hidden": 1024},
  "optim": {"lr": 5e-4, "min_lr": 1e-5, "weight_decay": 0.06, "warmup_steps": 975, "schedule": "cosine", "clip": 1.0, "ema": 0.999},
  "loss": {"smoothing": 0.1},
  "augment": {"crop_padding": 4, "flip": true, "randaugment_n": 1, "randaugment_m": 6, "cutmix": 1.0, "mix_probability": 0.5,
              "off_epochs": 8},
  "train": {"epochs": 75, "batch": 256, "eval_batch": 1000, "eval_every": 3900, "log_every": 97, "name": "cifar10-smoke"},
  "checkpoint": {"keep": 1}
})";

// The recipe of DeiT (Touvron et al., arXiv 2012.12877) at its learning rate for 1,024 images a step.
constexpr std::string_view kImagenetS16 = R"({
  "data": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "crop_pct": 0.9, "gpu_cache": 0},
  "model": {"image_size": 224, "channels": 3, "classes": 1000, "patch": 16, "width": 384, "depth": 12, "heads": 6, "mlp_ratio": 4,
            "pool": "token", "positions": "learned", "drop_path": 0.1},
  "moe": {"layers": "every:2", "router": "ermoe", "expert": "eigen", "experts": 8, "top_k": 2, "hidden": 0, "rank": 0,
          "orthogonality": "newton_schulz"},
  "optim": {"lr": 1e-3, "min_lr": 1e-5, "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.05, "clip": 1.0, "schedule": "cosine",
            "warmup_steps": 6255, "ema": 0.9999},
  "loss": {"kind": "cross_entropy", "smoothing": 0.1},
  "augment": {"resized_crop": true, "crop_scale": [0.08, 1.0], "crop_ratio": [0.75, 1.3333333333], "flip": true, "randaugment_n": 2,
              "randaugment_m": 9, "erasing": 0.25, "mixup": 0.8, "cutmix": 1.0, "mix_probability": 1.0, "mix_switch": 0.5},
  "train": {"epochs": 300, "batch": 1024, "accumulate": 4, "eval_batch": 250, "log_every": 50, "name": "imagenet-s16"},
  "checkpoint": {"keep": 3, "best": "accuracy"}
})";

// For a hundred brains that lie alike (ermoe-data align). What they have in common is taken off, and the head has weights for each place:
// with one average over all places a transformer of this size learns next to nothing from so few. The averaged weights count.
constexpr std::string_view kBrainAge = R"({
  "data": {"spacing": 4, "normalize": "zscore"},
  "model": {"dimensions": 3, "volume": [42, 48, 42], "patch": 6, "width": 192, "depth": 4, "heads": 4, "pool": "flatten",
            "center_input": true},
  "moe": {"layers": "every:2", "experts": 8, "top_k": 2, "hidden": 384,
          "basis": "leading", "score": "context_cosine", "combine": "normalized"},
  "optim": {"lr": 3e-4, "min_lr": 1e-5, "weight_decay": 0.05, "warmup_steps": 30, "schedule": "cosine", "ema": 0.99},
  "loss": {"kind": "l1"},
  "augment": {"flip": true, "shift": 1, "rotate": 3, "scale": 0.03, "noise": 0.05},
  "train": {"epochs": 160, "batch": 16, "eval_every": 140, "log_every": 35, "name": "brain-age"},
  "checkpoint": {"keep": 1}
})";

// What it changes of brain-age.
constexpr std::string_view kBrainAgeSmall = R"({
  "model": {"width": 96, "depth": 2},
  "moe": {"hidden": 192},
  "optim": {"lr": 5e-4, "ema": 0.98},
  "train": {"epochs": 80, "eval_every": 70, "log_every": 7, "name": "brain-age-small"}
})";

// Made-up brains of `ermoe-data phantom` instead of real ones, all for training but every fifth: what brain-age may start from
// (train.init). What it changes of brain-age.
constexpr std::string_view kBrainAgePhantom = R"({
  "augment": {"shift": 0.25, "rotate": 1, "scale": 0.01},
  "train": {"epochs": 120, "batch": 32, "eval_every": 150, "log_every": 75, "name": "brain-age-phantom"}
})";

// For some thousand images with captions, from nothing. So few are soon learnt by heart: images are varied, the averaged weights count, and
// the best checkpoint is the one whose rsum on held-out images is highest.
constexpr std::string_view kRetrieval = R"({
  "model": {"image_size": 64, "channels": 3, "patch": 8, "width": 128, "depth": 4, "heads": 4, "pool": "average", "positions": "sincos",
            "dropout": 0.1},
  "moe": {"layers": "every:2", "experts": 8, "top_k": 2, "hidden": 256},
  "text": {"depth": 4, "width": 128, "heads": 4, "context": 32, "vocabulary": 2048},
  "retrieval": {"projection": 128, "loss": "info_nce"},
  "optim": {"lr": 1e-3, "min_lr": 1e-5, "beta2": 0.98, "weight_decay": 0.2, "warmup_steps": 40, "schedule": "cosine", "ema": 0.99},
  "augment": {"resized_crop": true, "crop_scale": [0.4, 1.0], "flip": true, "randaugment_n": 1, "randaugment_m": 5},
  "train": {"epochs": 30, "batch": 100, "eval_every": 40, "log_every": 8, "name": "retrieval"},
  "checkpoint": {"keep": 1}
})";

constexpr std::array kPresets = {
    Preset{"fashion-mnist", "28 x 28 grey images of clothes; minutes on a CPU", kFashionMnist},
    Preset{"cifar10-small", "a small model for a part of CIFAR-10; minutes on a CPU", kCifar10Small},
    Preset{"cifar10", "CIFAR-10 in earnest; seven minutes on a GPU", kCifar10},
    Preset{"cifar10-smoke", "CIFAR-10 as a quick look whether all is well; about a minute on a GPU", kCifar10Smoke},
    Preset{"brain-age", "age from T1 volumes that were aligned, with experts; a fold in seconds on a GPU", kBrainAge},
    Preset{"brain-age-small", "the same with a small model; minutes on a CPU", kBrainAgeSmall, kBrainAge},
    Preset{"brain-age-phantom", "the model of brain-age on made-up brains (ermoe-data phantom)", kBrainAgePhantom, kBrainAge},
    Preset{"retrieval", "images and captions that find each other, from some thousand of them; minutes on a CPU", kRetrieval},
    Preset{"imagenet-s16", "a vision transformer S/16 with experts on ImageNet-1k, 300 epochs, for GPUs", kImagenetS16},
};

}  // namespace

std::span<const Preset> presets() { return kPresets; }

void apply_preset(RunConfig& config, std::string_view name) {
  if (name.empty()) return;
  std::vector<std::string_view> names;
  for (const auto& preset : kPresets) {
    names.push_back(preset.name);
    if (preset.name != name) continue;
    const std::string source = fmt::format("preset {}", name);
    for (const std::string_view json : {preset.base, preset.json})
      if (!json.empty()) apply_json(config, parse_json(json, source), source);
    config.preset = name;
    return;
  }
  fail_input("preset: there is no \"{}\"; choose one of {}", printable(name), fmt::join(names, ", "));
}

}  // namespace ermoe
