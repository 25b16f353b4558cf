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
  "moe": {"layers": "every:2", "experts": 8, "top_k": 2, "hidden": 128, "basis": "leading", "score": "context_cosine"},
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

constexpr std::string_view kCifar10 = R"({
  "model": {"image_size": 32, "channels": 3, "classes": 10, "patch": 4, "width": 256, "depth": 8, "heads": 8, "pool": "average",
            "drop_path": 0.1},
  "moe": {"layers": "every:2", "experts": 8, "top_k": 2, "hidden": 512, "basis_rank": 64},
  "optim": {"lr": 1e-3, "min_lr": 1e-5, "weight_decay": 0.05, "warmup_steps": 1000, "schedule": "cosine", "ema": 0.999},
  "loss": {"smoothing": 0.1},
  "augment": {"crop_padding": 4, "flip": true, "randaugment_n": 2, "randaugment_m": 9, "mixup": 0.8, "cutmix": 1.0, "off_epochs": 60},
  "train": {"epochs": 200, "batch": 512, "name": "cifar10"}
})";

constexpr std::array kPresets = {
    Preset{"fashion-mnist", "28 x 28 grey images of clothes; minutes on a CPU", kFashionMnist},
    Preset{"cifar10-small", "a small model for a part of CIFAR-10; minutes on a CPU", kCifar10Small},
    Preset{"cifar10", "CIFAR-10 in earnest, for a GPU", kCifar10},
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
    apply_json(config, parse_json(preset.json, source), source);
    config.preset = name;
    return;
  }
  fail_input("preset: there is no \"{}\"; choose one of {}", printable(name), fmt::join(names, ", "));
}

}  // namespace ermoe
