#include "tools/study_plan.h"

#include "core/error.h"
#include "core/file_io.h"
#include "core/json.h"
#include "models/config_rules.h"
#include "tools/config_check.h"
#include "tools/config_io.h"
#include "tools/config_table.h"
#include "tools/model_choice.h"
#include "tools/presets.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cctype>

namespace ermoe {
namespace {

using nlohmann::json;

constexpr size_t most_rows = 1000, most_seeds = 1000, longest_name = 100;
constexpr std::string_view name_signs = "._+=,-";

const std::vector<std::string> study_keys = {"name", "about", "preset", "base", "baseline", "seeds", "rows", "families"};
const std::vector<std::string> row_keys = {"name", "set", "seeds", "family"};
// Each run has its own, or the study's file has another place for it.
constexpr std::array reserved = {"preset", "train.seed", "train.out", "train.name", "train.resume"};

void refuse_unknown(const json& object, const std::vector<std::string>& known, const std::string& where) {
  check_input(object.is_object(), "{}: must be an object, {{...}}", where);
  for (const auto& [key, value] : object.items()) {
    if (std::ranges::find(known, key) != known.end()) continue;
    const std::string near = nearest_name(key, known);
    fail_input("{}: \"{}\" is not a key; {}", where, printable(key),
               near.empty() ? fmt::format("there are {}", fmt::join(known, ", ")) : fmt::format("did you mean \"{}\"?", near));
  }
}

/// The text under `key`; empty where there is none.
std::string text_of(const json& object, const char* key, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end()) return {};
  check_input(found->is_string(), "{}: {} must be a text", where, key);
  return found->get<std::string>();
}

std::vector<uint64_t> seeds_of(const json& object, const std::vector<uint64_t>& otherwise, const std::string& where) {
  const auto found = object.find("seeds");
  if (found == object.end()) return otherwise;
  check_input(found->is_array() && !found->empty() && found->size() <= most_seeds,
              "{}: seeds must be a list of 1 to {} numbers, as in [0, 1, 2]", where, most_seeds);
  std::vector<uint64_t> seeds;
  for (const json& seed : *found) {
    check_input(seed.is_number_unsigned(), "{}: seeds: {} is no whole number from 0", where, printable(seed.dump()));
    seeds.push_back(seed.get<uint64_t>());
    check_input(std::ranges::count(seeds, seeds.back()) == 1, "{}: seeds: {} stands there twice", where, seeds.back());
  }
  return seeds;
}

bool fits_a_folder(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || name_signs.find(c) != std::string_view::npos; }

void check_name(const std::string& name, const std::string& where) {
  check_input(!name.empty() && name.size() <= longest_name && name[0] != '.' && std::ranges::all_of(name, fits_a_folder),
              "{}: the name \"{}\" must be letters, digits and {} alone, since it names a folder, and may not begin with a point", where,
              printable(name), name_signs);
}

/// Whether `settings` say `key`, dotted or nested.
bool says(const json& settings, std::string_view key) {
  if (settings.contains(key)) return true;
  const size_t dot = key.find('.');
  if (dot == std::string_view::npos) return false;
  const auto section = settings.find(key.substr(0, dot));
  return section != settings.end() && section->is_object() && section->contains(key.substr(dot + 1));
}

void apply(RunConfig& config, const json& settings, const std::string& where) {
  check_input(settings.is_object(), "{}: settings must be an object, as in {{\"optim.lr\": 0.001}}", where);
  for (const char* key : reserved)
    check_input(
        !says(settings, key), "{}: {} is not set here: {}", where, key,
        key == std::string_view("preset") ? "it stands at the top of a study" : "each run has its own (see \"seeds\" and \"name\")");
  apply_json(config, settings, where);
}

void apply_flags(RunConfig& config, std::span<const Assignment> flags) {
  for (const Assignment& flag : flags) {
    const bool own = std::ranges::find(reserved, flag.key) != reserved.end();
    check_input(!own && flag.key != "config", "--{}: a study sets that itself", flag.key);
    set_from_text(config, *find_setting(flag.key), flag.text, "--");
  }
}

/// Of one family: its settings, row by row.
std::vector<json> settings_of_family(const json& levers, const std::string& where) {
  check_input(levers.is_object() && !levers.empty(), "{}: must be an object as in {{\"moe.basis_rank\": [16, 32]}}", where);
  size_t count = 0;
  for (const auto& [key, value] : levers.items()) {
    if (!value.is_array()) continue;
    check_input(!value.empty() && (count == 0 || value.size() == count), "{}: {} has {} values; lists of a family are taken side by side",
                where, printable(key), value.size());
    count = value.size();
  }
  check_input(count > 0, "{}: no setting has a list of values", where);
  std::vector<json> rows(count, json::object());
  for (size_t i = 0; i < count; ++i)
    for (const auto& [key, value] : levers.items()) rows[i][key] = value.is_array() ? value[i] : value;
  return rows;
}

/// "basis=disjoint,basis_rank=16": what a family's row sets, as a folder's name.
std::string name_of(const json& settings) {
  std::string name;
  for (const auto& [key, value] : settings.items()) {
    const std::string text = value.is_string() ? value.get<std::string>() : value.dump();
    name += fmt::format("{}{}={}", name.empty() ? "" : ",", key.substr(key.rfind('.') + 1), text);
  }
  std::ranges::replace_if(
      name, [](char c) { return !fits_a_folder(c); }, '-');
  return name.substr(0, longest_name);
}

class Parser {
 public:
  Parser(const json& file, const std::string& source, std::span<const Assignment> flags) : file_(file) {
    refuse_unknown(file, study_keys, source);
    study_.source = source;
    study_.name = text_of(file, "name", source);
    check_name(study_.name, source);
    study_.about = text_of(file, "about", source);
    apply_preset(study_.base, text_of(file, "preset", source));
    if (file.contains("base")) apply(study_.base, file["base"], source + ": base");
    apply_flags(study_.base, flags);
    seeds_ = seeds_of(file, {0}, source);
  }

  Study parse() {
    if (file_.contains("rows")) add_rows(file_["rows"]);
    if (study_.rows.empty()) add_row({{"name", "base"}});
    if (file_.contains("families")) add_families(file_["families"]);
    find_baseline();
    for (const StudyRow& row : study_.rows) check_row(row);
    return std::move(study_);
  }

 private:
  std::string where(const std::string& row) const { return fmt::format("{}: row {}", study_.source, printable(row)); }

  void add_rows(const json& rows) {
    check_input(rows.is_array(), "{}: rows must be a list of objects, each with a name", study_.source);
    for (const json& row : rows) add_row(row);
  }

  void add_row(const json& row) {
    const std::string number = fmt::format("{}", study_.rows.size() + 1);
    refuse_unknown(row, row_keys, where(number));
    const std::string name = text_of(row, "name", where(number));
    check_name(name, where(number));
    check_input(study_.rows.size() < most_rows, "{}: more than {} rows", study_.source, most_rows);
    check_input(std::ranges::find(study_.rows, name, &StudyRow::name) == study_.rows.end(), "{}: two rows have that name", where(name));
    StudyRow made{.name = name, .family = text_of(row, "family", where(name)), .sets = {}, .config = study_.base, .seeds = {}};
    if (row.contains("set")) apply(made.config, row["set"], where(name));
    made.seeds = seeds_of(row, seeds_, where(name));
    made.sets = changed_settings(made.config, study_.base);
    study_.rows.push_back(std::move(made));
  }

  void add_families(const json& families) {
    check_input(families.is_object(), "{}: families must be an object of named grids", study_.source);
    for (const auto& [family, levers] : families.items())
      for (const json& settings : settings_of_family(levers, fmt::format("{}: family {}", study_.source, printable(family))))
        add_row({{"name", name_of(settings)}, {"set", settings}, {"family", family}});
  }

  void find_baseline() {
    const std::string name = text_of(file_, "baseline", study_.source);
    if (!name.empty()) study_.baseline = rows_named(study_, {name})[0];
  }

  void check_row(const StudyRow& row) const {
    const auto& baseline = study_.rows[study_.baseline];
    try {
      validate(row.config);
      check_input(row.config.data.folds == 0 || row.config.data.fold > 0,
                  "data.folds: a row is single runs; say which part is held out by data.fold");
      check_input((task_of(row.config) == Task::pairs) == (task_of(baseline.config) == Task::pairs),
                  "text.depth: it and the baseline {} do not learn the same", baseline.name);
      check_input(is_regression(row.config.loss.kind) == is_regression(baseline.config.loss.kind),
                  "loss.kind: it and the baseline {} do not predict the same", baseline.name);
    } catch (const InputError& fault) {
      fail_input("{}: {}", where(row.name), fault.what());
    }
  }

  const json& file_;
  Study study_;
  std::vector<uint64_t> seeds_;
};

}  // namespace

std::vector<SettingText> changed_settings(const RunConfig& config, const RunConfig& base) {
  std::vector<SettingText> changes;
  for (const Setting& setting : config_table()) {
    const Value now = setting.get(config);
    if (now != setting.get(base)) changes.emplace_back(setting.key, to_text(now));
  }
  return changes;
}

Study parse_study(const json& json, const std::string& source, std::span<const Assignment> flags) {
  return Parser(json, source, flags).parse();
}

Study read_study(const std::string& path, std::span<const Assignment> flags) {
  return parse_study(read_json(path, kSettingsLimits), path, flags);
}

std::vector<size_t> rows_named(const Study& study, const std::vector<std::string>& names) {
  std::vector<std::string> known;
  for (const StudyRow& row : study.rows) known.push_back(row.name);
  std::vector<size_t> rows;
  for (const std::string& name : names) {
    const auto found = std::ranges::find(known, name);
    const std::string near = nearest_name(name, known);
    check_input(found != known.end(), "{}: there is no row {}; {}", study.source, printable(name),
                near.empty() ? fmt::format("there are {}", fmt::join(known, ", ")) : fmt::format("did you mean {}?", near));
    rows.push_back(static_cast<size_t>(found - known.begin()));
  }
  if (names.empty())
    for (size_t i = 0; i < known.size(); ++i) rows.push_back(i);
  return rows;
}

}  // namespace ermoe
