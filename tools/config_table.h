// The one table of settings. Flags, JSON keys, --help, validation, the start-up print-out and the run folder's
// config.json are all driven by it, so a setting is added in one line here and nowhere else.
// Read next: tools/config_io.h (files), tools/command_line.h (flags), tools/config_check.h (combinations).
#pragma once

#include "tools/setting.h"

#include <string>
#include <string_view>
#include <vector>

namespace ermoe {

/// Every setting, grouped by section, in the order in which help and config.json show them.
const std::vector<Setting>& config_table();

/// By key ("optim.lr") or short form ("lr" is none, "data" is); null where there is no such setting.
const Setting* find_setting(std::string_view name);

/// The setting or section that `name` is most likely a slip of; empty where nothing is near.
std::string nearest_setting(std::string_view name);

/// The one of `names` that `name` is most likely a slip of; empty where none is near.
std::string nearest_name(std::string_view name, const std::vector<std::string>& names);

/// "optim.lrr is not a setting; did you mean optim.lr?"
std::string unknown_setting(std::string_view name);

/// What stands above a section's settings in --help: "optim: the optimizer and its learning rate".
std::string section_title(std::string_view section);

}  // namespace ermoe
