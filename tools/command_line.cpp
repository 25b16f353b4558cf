#include "tools/command_line.h"

#include "core/enum_names.h"
#include "core/error.h"
#include "core/file_io.h"
#include "core/json.h"
#include "tools/config_io.h"
#include "tools/config_table.h"
#include "tools/presets.h"
#include "tools/run_folder.h"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <filesystem>

namespace ermoe {
namespace {

bool wanted(const Setting& setting, std::span<const std::string_view> sections) {
  const std::string section = setting.section();
  return sections.empty() || section.empty() || std::find(sections.begin(), sections.end(), section) != sections.end();
}

std::string flag_names(const Setting& setting) {
  return setting.short_name.empty() || setting.short_name == setting.key ? "--" + setting.key
                                                                         : "--" + setting.short_name + ",--" + setting.key;
}

/// Long names of a program's own flags, without the dashes.
std::vector<std::string> flags_of(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back(name);
  }
  for (const CLI::App* part : app.get_subcommands({})) {
    for (const std::string& name : flags_of(*part)) names.push_back(name);
  }
  return names;
}

/// Throws InputError for the first thing typed that the parser knew nothing to do with.
void refuse_extras(const CLI::App& app) {
  const std::vector<std::string> extras = app.remaining(true);
  if (extras.empty()) return;
  std::string extra = extras.front();
  const bool settings = app.get_option_no_throw("--config") != nullptr;
  check_input(extra.starts_with("--") && extra.size() > 2, "\"{}\" is not understood; {}", printable(extra),
              settings ? "settings are given as --name value" : "--help says what is");
  extra = extra.substr(2, extra.find('=') - 2);
  const std::string near = settings ? nearest_setting(extra) : nearest_name(extra, flags_of(app));
  fail_input("--{}{}", printable(extra),
             near.empty() ? " is not a flag; --help lists them all" : " is not a flag; did you mean --" + near + "?");
}

/// The last text given under `key`; null where it was not given.
const std::string* last_given(const std::vector<Assignment>& flags, std::string_view key) {
  const auto found = std::find_if(flags.rbegin(), flags.rend(), [&](const Assignment& a) { return a.key == key; });
  return found == flags.rend() ? nullptr : &found->text;
}

/// Breaks `text` into lines of at most `width`, each after the first indented by `indent` spaces.
std::string wrap(const std::string& text, size_t width, size_t indent) {
  std::string out, line;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(' ', at), text.size());
    const std::string word = text.substr(at, end - at);
    if (!line.empty() && line.size() + 1 + word.size() > width) {
      out += line + "\n" + std::string(indent, ' ');
      line.clear();
    }
    line += line.empty() ? word : " " + word;
    at = end + 1;
  }
  return out + line;
}

std::string help_line(const Setting& setting, const RunConfig& defaults) {
  constexpr size_t column = 30, width = 86;
  std::string what = setting.help;
  if (setting.kind == Kind::choice) what += fmt::format(" ({})", fmt::join(setting.choices, ", "));
  const std::string value = to_text(setting.get(defaults));
  if (!value.empty()) what += " [" + value + "]";
  std::string names = "  --" + setting.key;
  if (!setting.short_name.empty() && setting.short_name != setting.key) names += ", --" + setting.short_name;
  const std::string gap = names.size() + 2 > column ? "\n" + std::string(column, ' ') : std::string(column - names.size(), ' ');
  return names + gap + wrap(what, width, column) + "\n";
}

}  // namespace

void add_setting_flags(CLI::App& app, std::vector<Assignment>& flags, std::span<const std::string_view> sections) {
  const auto add = [&](const std::string& names, const std::string& key, const std::string& help, Kind kind) {
    const auto store = [&flags, key, kind](const CLI::results_t& given) {
      const std::string text = given.empty() ? std::string{} : given.back();
      flags.push_back({key, kind == Kind::flag && text.empty() ? "true" : text});
      return true;
    };
    CLI::Option* option = app.add_option(names, store, help)->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
    if (kind == Kind::flag) option->expected(0, 1);  // "--augment.flip" alone switches on
  };
  for (const auto& setting : config_table()) {
    if (wanted(setting, sections)) add(flag_names(setting), setting.key, setting.help, setting.kind);
  }
  add("--config", "config", "JSON file of settings", Kind::text);
}

void add_device_flag(CLI::App& app, DeviceChoice& device) {
  const auto store = [&device](const std::string& name) { device = *parse_enum<DeviceChoice>(name); };
  app.add_option_function<std::string>("--device", store, "auto (a GPU where there is one that the build has code for), cpu or cuda")
      ->check(CLI::IsMember(std::vector<std::string>{"auto", "cpu", "cuda"}));
}

void add_decoder_flag(CLI::App& app, DecoderChoice& decoder) {
  const auto store = [&decoder](const std::string& name) { decoder = *parse_enum<DecoderChoice>(name); };
  app.add_option_function<std::string>("--decoder", store, "of JPEG files: auto (the GPU where it has engines for photographs), cpu or gpu")
      ->check(CLI::IsMember(std::vector<std::string>{"auto", "cpu", "gpu"}));
}

void add_precision_flag(CLI::App& app, Precision& precision) {
  const auto store = [&precision](const std::string& name) { precision = *parse_enum<Precision>(name); };
  app.add_option_function<std::string>(
         "--precision", store,
         "what ops compute in; auto: as the run's train.precision says, which is auto again as a rule: bf16 on a GPU, f32 on a CPU")
      ->check(CLI::IsMember(std::vector<std::string>{"auto", "f32", "bf16"}));
}

bool parse_flags(CLI::App& app, int argc, const char* const* argv) {
  app.allow_extras();
  for (CLI::App* part : app.get_subcommands({})) part->allow_extras();
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return false;
  } catch (const CLI::ParseError& e) {
    refuse_extras(app);  // a slip in one flag may be why another is missed
    fail_input("{}", printable(e.what()));
  }
  refuse_extras(app);
  return true;
}

RunConfig resolve_config(const std::vector<Assignment>& flags) {
  const std::string* resume = last_given(flags, "train.resume");
  const std::string* file = last_given(flags, "config");
  std::string path = file != nullptr ? *file : std::string{};
  if (file == nullptr && resume != nullptr && !resume->empty()) {
    const std::string recorded = run_folder_of(*resume) + "/config.json";
    if (std::filesystem::exists(recorded)) path = recorded;
  }
  RunConfig config;
  const nlohmann::json json = path.empty() ? nlohmann::json::object() : read_json(path, kSettingsLimits);
  const std::string* preset = last_given(flags, "preset");
  apply_preset(config, preset != nullptr ? *preset : preset_of(json));
  const std::string chosen = config.preset;
  apply_json(config, json, path);
  if (preset != nullptr) config.preset = chosen;
  if (resume != nullptr && !resume->empty()) config.train.out = run_folder_of(*resume);
  for (const auto& flag : flags) {
    if (flag.key == "config" || flag.key == "preset") continue;
    set_from_text(config, *find_setting(flag.key), flag.text, "--");
  }
  return config;
}

CommandLine parse_command_line(std::string_view program, std::string_view about, int argc, const char* const* argv) {
  CLI::App app{std::string(about), std::string(program)};
  std::vector<Assignment> flags;
  add_setting_flags(app, flags);
  CommandLine result;
  if (parse_flags(app, argc, argv)) {
    result.config = resolve_config(flags);
  } else {
    result.help = help_text(program, about);
  }
  return result;
}

std::string help_text(std::string_view program, std::string_view about, std::span<const std::string_view> sections) {
  const RunConfig defaults;
  std::string out = fmt::format("{}: {}\n\nusage: {} [--preset NAME] [--config FILE] [--SETTING VALUE ...]\n", program, about, program);
  out += "The command line wins over the file, the file over the preset. Defaults stand in brackets.\n\n";
  out += "  --config                    JSON file of settings, nested or dotted: {\"optim\": {\"lr\": 0.001}}\n";
  std::string section;
  for (const auto& setting : config_table()) {
    if (!wanted(setting, sections)) continue;
    if (setting.section() != section) {
      section = setting.section();
      out += "\n" + section_title(section) + "\n";
    }
    out += help_line(setting, defaults);
  }
  out += "\npresets\n";
  for (const auto& preset : presets()) out += fmt::format("  {:<28}{}\n", preset.name, preset.about);
  return out;
}

}  // namespace ermoe
