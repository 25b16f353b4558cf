#include "tools/report_curves.h"

#include "core/error.h"
#include "core/file_io.h"
#include "core/json.h"
#include "tools/config_table.h"
#include "tools/metrics_log.h"
#include "tools/report_page.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <set>

namespace ermoe {
namespace {

using nlohmann::ordered_json;

constexpr size_t most_rows = 500;

struct Row {
  std::string split;
  nlohmann::json values;
};

std::vector<Row> read_rows(const std::string& path) {
  const std::string text = read_file(path, largest_metrics_log);
  std::vector<Row> rows;
  for (const std::string_view line : whole_lines(text)) {
    const std::string source = fmt::format("{}, line {}", path, rows.size() + 1);
    Row row{{}, parse_json(line, source)};
    check_input(row.values.is_object() && row.values.contains("step") && row.values["step"].is_number_integer() &&
                    row.values.contains("split") && row.values["split"].is_string(),
                "{}: is no row of metrics: it lacks a step or a split", source);
    row.split = row.values["split"].get<std::string>();
    rows.push_back(std::move(row));
  }
  return rows;
}

/// Every so many-th, and the last.
std::vector<const Row*> thinned(const std::vector<const Row*>& rows) {
  const size_t each = (rows.size() + most_rows - 1) / most_rows;
  std::vector<const Row*> kept;
  for (size_t i = 0; i < rows.size(); ++i)
    if (i % each == each - 1 || i + 1 == rows.size()) kept.push_back(rows[i]);
  return kept;
}

ordered_json columns_of(const std::vector<const Row*>& rows) {
  ordered_json columns = ordered_json::object();
  for (size_t i = 0; i < rows.size(); ++i)
    for (const auto& [name, value] : rows[i]->values.items()) {
      if (!value.is_number()) continue;
      ordered_json& column = columns[name];
      while (column.size() < i) column.push_back(nullptr);
      column.push_back(value.is_number_integer() ? ordered_json(value) : ordered_json(brief(value.get<double>())));
    }
  for (auto& column : columns)
    while (column.size() < rows.size()) column.push_back(nullptr);
  return columns;
}

std::string shown(const Value& value) {
  const std::string text = to_text(value);
  return text.empty() ? std::string("(none)") : text;
}

}  // namespace

ordered_json report_curves(const std::string& run_folder) {
  const std::vector<Row> rows = read_rows(run_folder + "/metrics.jsonl");
  ordered_json out = ordered_json::object();
  std::set<std::string> splits;
  for (const Row& row : rows) splits.insert(row.split);
  for (const std::string& split : splits) {
    std::vector<const Row*> own;
    for (const Row& row : rows)
      if (row.split == split) own.push_back(&row);
    out[split] = columns_of(thinned(own));
  }
  return out;
}

ordered_json report_settings(const std::vector<RunConfig>& runs) {
  ordered_json out = ordered_json::array();
  const RunConfig base;
  for (const Setting& setting : config_table()) {
    if (setting.saved == Saved::no) continue;
    const Value standard = setting.get(base), first = setting.get(runs.at(0));
    const bool same = std::ranges::all_of(runs, [&](const RunConfig& run) { return setting.get(run) == first; });
    if (runs.size() == 1 ? first == standard : same) continue;
    ordered_json values = ordered_json::array();
    for (const RunConfig& run : runs) values.push_back(shown(setting.get(run)));
    out.push_back({{"key", setting.key}, {"standard", shown(standard)}, {"values", values}, {"help", setting.help}});
  }
  return out;
}

}  // namespace ermoe
