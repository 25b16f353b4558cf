// Complete recipes by name: `--preset cifar10-small`. Each is JSON that a user could have written into a file.
#pragma once

#include "tools/run_config.h"

#include <span>
#include <string>
#include <string_view>

namespace ermoe {

struct Preset {
  std::string_view name;
  std::string_view about;  // one line for --help
  std::string_view json;
  std::string_view base = {};  // another's, which `json` changes
};

std::span<const Preset> presets();

/// Puts a preset's settings into `config` and notes its name there; an empty name changes nothing. Throws InputError
/// for an unknown one, listing those there are.
void apply_preset(RunConfig& config, std::string_view name);

}  // namespace ermoe
