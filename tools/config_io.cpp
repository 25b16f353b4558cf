#include "tools/config_io.h"

#include "core/error.h"
#include "core/json.h"
#include "tools/config_table.h"
#include "tools/presets.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <set>

namespace ermoe {
namespace {

using nlohmann::json;

bool is_section(std::string_view name) {
  const auto& table = config_table();
  return std::any_of(table.begin(), table.end(), [&](const Setting& s) { return !name.empty() && s.section() == name; });
}

/// Walks nested objects; a key's full name is the path to it joined by dots.
class Reader {
 public:
  Reader(RunConfig& config, const std::string& name) : config_(config), source_(name + ": ") {}

  void object(const json& node, const std::string& path) {
    for (const auto& [key, value] : node.items()) entry(path.empty() ? key : path + "." + key, value);
  }

 private:
  void entry(const std::string& path, const json& value) {
    const Setting* setting = find_setting(path);
    if (setting != nullptr && setting->key == path) {
      check_input(seen_.insert(path).second, "{}{} is set twice", source_, path);
      set_from_json(config_, *setting, value, source_);
      return;
    }
    check_input(is_section(path), "{}{}", source_, unknown_setting(path));
    check_input(value.is_object(), "{}{} is a group of settings and must be an object as in {{\"{}\": {{...}}}}", source_, path, path);
    object(value, path);
  }

  RunConfig& config_;
  std::string source_;
  std::set<std::string> seen_;
};

nlohmann::ordered_json as_json(const Value& value) {
  return std::visit([](const auto& v) { return nlohmann::ordered_json(v); }, value);
}

}  // namespace

void apply_json(RunConfig& config, const json& json, const std::string& name) {
  check_input(json.is_object(), "{}: the settings must be one JSON object", name);
  Reader(config, name).object(json, "");
}

std::string preset_of(const json& json) {
  const auto found = json.is_object() ? json.find("preset") : json.end();
  return found != json.end() && found->is_string() ? found->get<std::string>() : std::string{};
}

RunConfig load_config(const std::string& path) {
  const json file = read_json(path, kSettingsLimits);
  RunConfig config;
  apply_preset(config, preset_of(file));
  apply_json(config, file, path);
  return config;
}

std::string config_to_json(const RunConfig& config) {
  nlohmann::ordered_json out = nlohmann::ordered_json::object();
  for (const auto& setting : config_table()) {
    if (setting.saved == Saved::no) continue;
    const std::string section = setting.section();
    auto& place = section.empty() ? out : out[section];
    place[section.empty() ? setting.key : setting.key.substr(section.size() + 1)] = as_json(setting.get(config));
  }
  return out.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

std::string describe_changes(const RunConfig& config, const RunConfig& base) {
  std::string out;
  const auto shown = [](const Value& value) {
    const std::string text = to_text(value);
    return text.empty() ? std::string("(none)") : text;
  };
  for (const auto& setting : config_table()) {
    const Value now = setting.get(config), before = setting.get(base);
    if (now != before) out += fmt::format("  {:<24} {:<20} (default {})\n", setting.key, shown(now), shown(before));
  }
  return out;
}

}  // namespace ermoe
