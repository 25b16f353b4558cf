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

constexpr std::string_view kFashionMnist = R"({
  "model": {"image_size": 28, "channels": 1, "classes": 10, "patch": 4, "width": 128, "depth": 4, "heads": 4, "pool": "average"},
  "moe": {"layers": "every:2", "experts": 8, "top_k": 2, "hidden": 256, "basis": "leading", "score": "context_cosine"},
  "optim": {"lr": 1e-3, "min_lr": 1e-5, "weight_decay": 0.05, "warmup_steps": 200, "schedule": "cosine"},
  "loss": {"smoothing": 0.05},
  "augment": {"crop_padding": 2, "flip": true},
  "train": {"epochs": 5, "batch": 128, "name": "fashion-mnist"}
})";

constexpr std::string_view kCifar10Small = R"({
  "model": {"image_size": 32, "channels": 3, "classes": 10, "patch": 4, "width": 128, "depth": 6, "heads": 4, "pool": "average"},
  "moe": {"layers": "every:2", "experts": 8, "top_k": 2, "hidden": 256},
  "optim": {"lr": 1e-3, "min_lr": 1e-5, "weight_decay": 0.05, "warmup_steps": 100, "schedule": "cosine"},
  "loss": {"smoothing": 0.1},
  "augment": {"crop_padding": 4, "flip": true},
  "train": {"epochs": 20, "batch": 128, "name": "cifar10-small"}
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
