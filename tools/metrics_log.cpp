#include "tools/metrics_log.h"

#include "core/error.h"
#include "core/file_io.h"
#include "core/json.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <functional>

namespace ermoe {
namespace {

constexpr int64_t kNoStep = -1;

/// The step that a line begins with, in the table.
int64_t csv_step(std::string_view line) {
  int64_t step = kNoStep;
  const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), step);
  return error == std::errc{} && end != line.data() + line.size() && *end == ',' ? step : kNoStep;
}

int64_t json_step(std::string_view line) {
  try {
    const auto row = parse_json(line, "metrics.jsonl");
    const auto found = row.is_object() ? row.find("step") : row.end();
    return found != row.end() && found->is_number_integer() ? found->get<int64_t>() : kNoStep;
  } catch (const InputError&) {
    return kNoStep;
  }
}

std::vector<std::string> cells_of(std::string_view line) {
  std::vector<std::string> cells;
  for (;;) {
    const size_t comma = line.find(',');
    cells.emplace_back(line.substr(0, comma));
    if (comma == std::string_view::npos) return cells;
    line.remove_prefix(comma + 1);
  }
}

/// Rewrites `path` with the first `headers` lines and those later ones whose step is known and at most `last`.
void cut_rows(const std::string& path, size_t headers, int64_t last, const std::function<int64_t(std::string_view)>& step_of) {
  const std::string text = read_file(path, largest_metrics_log);
  std::string kept;
  size_t number = 0;
  for (const auto line : whole_lines(text)) {
    const int64_t step = number++ < headers ? 0 : step_of(line);
    if (step == kNoStep || step > last) continue;
    kept += line;
    kept += '\n';
  }
  if (kept != text) write_file(path, kept);
}

std::string as_json(const MetricsRow& row) {
  nlohmann::ordered_json out;
  out["step"] = row.step;
  out["split"] = row.split;
  for (const auto& [name, value] : row.values) {
    if (!std::isfinite(value)) {
      out[name] = nullptr;
    } else if (std::trunc(value) == value && std::abs(value) < 1e15) {
      out[name] = static_cast<int64_t>(value);
    } else {
      out[name] = value;
    }
  }
  return out.dump() + "\n";
}

void check_name(const std::string& name) {
  check(!name.empty() && name.find_first_of(",\"\r\n") == std::string::npos, "[metrics] \"{}\" cannot name a column", printable(name));
}

}  // namespace

std::vector<std::string_view> whole_lines(std::string_view text) {
  std::vector<std::string_view> lines;
  for (size_t end = text.find('\n'); end != std::string_view::npos; end = text.find('\n')) {
    lines.push_back(text.substr(0, end));
    text.remove_prefix(end + 1);
  }
  return lines;
}

MetricsLog::MetricsLog(const std::string& folder, int64_t resumed_step) {
  const std::string jsonl = folder + "/metrics.jsonl", csv = folder + "/metrics.csv";
  if (std::filesystem::exists(jsonl)) cut_rows(jsonl, 0, resumed_step, json_step);
  if (std::filesystem::exists(csv)) {
    cut_rows(csv, 1, resumed_step, csv_step);
    const std::string text = read_file(csv, largest_metrics_log);
    const auto lines = whole_lines(text);
    if (!lines.empty()) {
      columns_ = cells_of(lines[0]);
      check_input(columns_.size() >= 2 && columns_[0] == "step" && columns_[1] == "split",
                  "{}: its first line does not begin with step,split, so it is not a table of metrics", csv);
    }
  }
  jsonl_ = AppendFile(jsonl);
  csv_ = AppendFile(csv);
  events_.emplace_back(folder, resumed_step > 0 ? resumed_step + 1 : 0);
}

/// New columns go to the right, so older lines only need empty cells at their end.
void MetricsLog::widen(const std::vector<std::string>& columns) {
  std::string text = fmt::format("{}\n", fmt::join(columns, ","));
  if (!columns_.empty()) {
    const std::string old = read_file(csv_.path(), largest_metrics_log);
    const auto lines = whole_lines(old);
    for (size_t i = 1; i < lines.size(); ++i) {
      text += lines[i];
      text.append(columns.size() - columns_.size(), ',');
      text += '\n';
    }
  }
  write_file(csv_.path(), text);
  csv_ = AppendFile(csv_.path());
  columns_ = columns;
}

void MetricsLog::write(const MetricsRow& row) {
  check(!events_.empty(), "[metrics] written to a log that was never opened");
  check_name(row.split);
  std::vector<std::string> columns = columns_.empty() ? std::vector<std::string>{"step", "split"} : columns_;
  std::vector<std::pair<std::string, double>> points;
  std::vector<size_t> places;
  for (const auto& [name, value] : row.values) {
    check_name(name);
    size_t place = static_cast<size_t>(std::find(columns.begin(), columns.end(), name) - columns.begin());
    if (place == columns.size()) columns.push_back(name);
    places.push_back(place);
    points.emplace_back(row.split + "/" + name, value);
  }
  if (columns != columns_) widen(columns);
  std::vector<std::string> cells(columns.size());
  cells[0] = fmt::format("{}", row.step);
  cells[1] = row.split;
  for (size_t i = 0; i < places.size(); ++i) cells[places[i]] = fmt::format("{}", row.values[i].second);
  csv_.append(fmt::format("{}\n", fmt::join(cells, ",")));
  jsonl_.append(as_json(row));
  events_.front().add(row.step, points);
}

}  // namespace ermoe
