// From argv to settings: every entry of tools/config_table.h is a flag `--section.name`, some have a short form. The
// command line wins over --config FILE, the file wins over --preset NAME, and that over the defaults.
// Read next: tools/config_check.h.
#pragma once

#include "tools/run_config.h"

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace CLI {
class App;
}

namespace ermoe {

/// A flag as it was typed.
struct Assignment {
  std::string key;
  std::string text;
};

struct CommandLine {
  RunConfig config;
  std::string help;  // not empty: the user asked for it; print it and exit with 0
};

/// Reads the command line of a program that runs on settings alone (ermoe-train). Throws InputError.
/// With --resume RUN and no --config, the settings of RUN/config.json come first, and train.out is RUN.
CommandLine parse_command_line(std::string_view program, std::string_view about, int argc, const char* const* argv);

/// For programs with flags of their own besides: adds the flags of some sections (all where empty), --preset and
/// --config to `app`. After the parse, `flags` holds what was typed.
void add_setting_flags(CLI::App& app, std::vector<Assignment>& flags, std::span<const std::string_view> sections = {});

/// Adds --device auto|cpu|cuda.
void add_device_flag(CLI::App& app, DeviceChoice& device);
/// Adds --decoder auto|cpu|gpu.
void add_decoder_flag(CLI::App& app, DecoderChoice& decoder);
/// Adds --precision auto|f32|bf16 of a trained model.
void add_precision_flag(CLI::App& app, Precision& precision);

/// Runs `app` on argv and turns every complaint of the parser into an InputError, with the nearest name for an unknown
/// flag. Returns false where help was asked for.
bool parse_flags(CLI::App& app, int argc, const char* const* argv);

/// Preset, file, then the flags, in that order.
RunConfig resolve_config(const std::vector<Assignment>& flags);

/// The text of --help: usage, presets, and the settings of `sections` (all where empty) by section.
std::string help_text(std::string_view program, std::string_view about, std::span<const std::string_view> sections = {});

}  // namespace ermoe
