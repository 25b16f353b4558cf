// What a study compares: rows of settings, each with its seeds, read from one JSON file and checked before anything runs. docs/studies.md
// says what may stand in it. Read next: tools/study_runs.h, tools/study_schedule.h, tools/study_table.h.
#pragma once

#include "tools/command_line.h"
#include "tools/run_config.h"

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ermoe {

/// A setting's key and its value as one would type it.
using SettingText = std::pair<std::string, std::string>;

/// The settings in which `config` differs from `base`, in the table's order, with their values in `config`.
std::vector<SettingText> changed_settings(const RunConfig& config, const RunConfig& base);

struct StudyRow {
  std::string name;               // a folder's name: letters, digits and . _ + = , -
  std::string family;             // of rows that belong together; empty: none
  std::vector<SettingText> sets;  // what it has otherwise than the base
  RunConfig config;               // without seed and folder, which are a run's
  std::vector<uint64_t> seeds;    // none twice
};

struct Study {
  std::string name, about, source;
  RunConfig base;
  std::vector<StudyRow> rows;
  size_t baseline = 0;  // the row that others are compared with
};

/// A study from JSON; `source` names it in messages. `flags` change the base. Throws InputError, which names the row: for unknown keys,
/// with the nearest one, and for a row that could not be trained as far as settings alone tell.
Study parse_study(const nlohmann::json& json, const std::string& source, std::span<const Assignment> flags = {});
Study read_study(const std::string& path, std::span<const Assignment> flags = {});

/// The rows of these names, by place; all where there are none. Throws InputError for a name that is not there.
std::vector<size_t> rows_named(const Study& study, const std::vector<std::string>& names);

}  // namespace ermoe
