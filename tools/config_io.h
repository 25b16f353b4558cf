// Settings in files: a run's JSON is read through the table of tools/config_table.h, and written back complete, so that
// `--config RUN/config.json` repeats a run. Read next: tools/command_line.h.
#pragma once

#include "core/json.h"
#include "tools/run_config.h"

#include <nlohmann/json_fwd.hpp>

#include <cstddef>
#include <string>

namespace ermoe {

/// A file of settings is small; anything larger is another file.
inline constexpr JsonLimits kSettingsLimits{.max_bytes = size_t{1} << 20, .max_depth = 16, .max_values = 10000};

/// Puts the settings of a JSON object into `config`. Keys may be nested, {"optim": {"lr": 1e-3}}, or dotted. Throws
/// InputError (starting with `name`) for unknown keys, wrong types, values out of range and settings given twice.
/// A "preset" in it is noted only; see `preset_of`.
void apply_json(RunConfig& config, const nlohmann::json& json, const std::string& name);

/// The preset that a JSON object names; empty: none.
std::string preset_of(const nlohmann::json& json);

/// Defaults, then the preset that the file names, then the file.
RunConfig load_config(const std::string& path);

/// All settings, in the table's order, nested by section.
std::string config_to_json(const RunConfig& config);

/// One line for every setting that differs from `base`: "optim.lr            0.0005   (default 0.001)".
std::string describe_changes(const RunConfig& config, const RunConfig& base = {});

}  // namespace ermoe
