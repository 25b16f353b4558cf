// A study's table as Markdown, CSV and JSON.
#include "core/error.h"
#include "data/csv.h"
#include "tools/study_table.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>

namespace ermoe {
namespace {

using nlohmann::ordered_json;

// What the first columns say already, or another column beside it.
constexpr std::array not_columns = {"accuracy", "mae", "rsum", "loss", "class_information_null"};

std::string scaled(const FigureKind& kind, double value) { return fmt::format("{:.{}f}", kind.scale * value, kind.digits); }

std::string mean_text(const TableRow& row, const FigureKind& kind) {
  const auto found = row.values.find(kind.key);
  return found == row.values.end() ? "" : scaled(kind, found->second.mean);
}

/// "93.01 ± 0.12".
std::string spread_text(const TableRow& row, const FigureKind& kind) {
  const auto found = row.values.find(kind.key);
  if (found == row.values.end()) return "";
  const auto& deviation = found->second.deviation;
  return scaled(kind, found->second.mean) + (deviation ? " ± " + scaled(kind, *deviation) : "");
}

/// "+0.31 (-0.12 to +0.74)"; with a star where the interval is over samples.
std::string difference_text(const std::optional<RowDifference>& difference, const FigureKind& kind) {
  if (!difference) return "";
  const RowDifference& d = *difference;
  const auto text = [&](double value) {
    const double shown = kind.scale * value;
    return fmt::format("{:+.{}f}", std::abs(shown) < 0.5 * std::pow(10.0, -kind.digits) ? 0.0 : shown, kind.digits);
  };
  if (!d.interval) return text(d.mean) + " (one seed: no interval)";
  return fmt::format("{} ({} to {}){}", text(d.mean), text(d.interval->low), text(d.interval->high), d.over == Over::samples ? "*" : "");
}

std::string sets_text(const TableRow& row) {
  std::string text;
  for (const auto& [key, value] : row.sets) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", key, value.empty() ? "(none)" : value);
  return text.empty() ? "the base" : text;
}

std::string class_information_text(const TableRow& row, const FigureKind& kind) {
  const std::string chance = mean_text(row, figure_kind("class_information_null"));
  return mean_text(row, kind) + (chance.empty() ? "" : " / " + chance);
}

std::string line(const std::vector<std::string>& cells) { return fmt::format("| {} |\n", fmt::join(cells, " | ")); }

std::string header(const std::vector<std::string>& titles) {
  std::string text = line(titles) + "|";
  for (size_t i = 0; i < titles.size(); ++i) text += "---|";
  return text + "\n";
}

/// Columns of the first table behind accuracy and difference: what any row has.
std::vector<FigureKind> columns_of(const StudyTable& table) {
  std::vector<FigureKind> columns;
  for (const FigureKind& kind : figure_kinds()) {
    const bool left_out = std::ranges::any_of(not_columns, [&](const char* key) { return std::string(key) == kind.key; });
    const bool there = std::ranges::any_of(table.rows, [&](const TableRow& row) { return row.values.contains(kind.key); });
    if (there && !left_out) columns.push_back(kind);
  }
  return columns;
}

std::string main_table(const StudyTable& table) {
  const FigureKind& judged = figure_kind(table.judged_by);
  std::vector<std::string> titles{"row", "seeds", judged.title, "difference to " + table.baseline};
  const std::vector<FigureKind> columns = columns_of(table);
  for (const FigureKind& kind : columns) titles.push_back(kind.title);
  std::string text = header(titles);
  for (const TableRow& row : table.rows) {
    if (row.runs.empty()) continue;
    std::vector<std::string> cells{row.name, std::to_string(row.runs.size()), spread_text(row, judged),
                                   difference_text(row.difference, judged)};
    for (const FigureKind& kind : columns)
      cells.push_back(std::string(kind.key) == "class_information" ? class_information_text(row, kind) : mean_text(row, kind));
    text += line(cells);
  }
  return text;
}

/// What the reader of the differences must know.
std::string notes(const StudyTable& table) {
  const auto over = [&](Over what) {
    const auto is_over = [&](const std::optional<RowDifference>& d) { return d && d->over == what; };
    return std::ranges::any_of(table.rows, [&](const TableRow& row) { return is_over(row.difference) || is_over(row.moved); });
  };
  std::string text;
  if (over(Over::seeds)) text += "Differences are paired by seed, with Student's 95 % interval.\n";
  if (over(Over::samples)) text += "\\* One seed: the interval is over test samples, and does not tell what another seed would give.\n";
  int64_t at_once = 1;
  std::string missing;
  for (const TableRow& row : table.rows) {
    for (const RunFigures& run : row.runs) at_once = std::max(at_once, run.at_once);
    if (row.runs.empty()) missing += (missing.empty() ? "" : ", ") + row.name;
  }
  if (at_once > 1) text += fmt::format("images/s: up to {} runs shared the device.\n", at_once);
  if (!missing.empty()) text += fmt::format("Not done yet: {}.\n", missing);
  for (const std::string& run : table.unread) text += fmt::format("Left out, {}.\n", run);
  return text.empty() ? "" : "\n" + text;
}

std::string by_layer(const TableRow& row, const char* key) {
  std::string text;
  for (const LayerFigures& layer : row.layers)
    if (const auto found = layer.values.find(key); found != layer.values.end())
      text += fmt::format("{}{}: {}", text.empty() ? "" : ", ", layer.block, scaled(figure_kind(key), found->second));
  return text;
}

std::string layer_table(const StudyTable& table) {
  std::string text;
  for (const TableRow& row : table.rows)
    if (!row.layers.empty()) text += line({row.name, by_layer(row, "gini"), by_layer(row, "max_over_mean")});
  return text.empty() ? "" : "\n## By block\n\n" + header({"row", "load Gini", "max/mean load"}) + text;
}

/// At most six of a row's measurements, spread over the training, each behind its step.
std::string course_text(const TableRow& row, const char* key) {
  const auto found = row.courses.find(key);
  if (found == row.courses.end()) return "";
  const std::vector<CoursePoint>& points = found->second;
  const size_t shown = std::min<size_t>(points.size(), 6);
  std::string text;
  for (size_t i = 0; i < shown; ++i) {
    const CoursePoint& point = points[shown == 1 ? 0 : i * (points.size() - 1) / (shown - 1)];
    text += fmt::format("{}{}: {}", text.empty() ? "" : ", ", point.step, scaled(figure_kind(key), point.value));
  }
  return text;
}

std::string course_table(const StudyTable& table) {
  std::string text;
  for (const TableRow& row : table.rows)
    if (!row.courses.empty())
      text += line({row.name, course_text(row, "purity_router"), course_text(row, "purity_experts"), course_text(row, "churn")});
  return text.empty() ? "" : "\n## Over training, by step\n\n" + header({"row", "purity, router", "purity, experts", "churn"}) + text;
}

std::string family_line(const TableRow& row, const FigureKind& judged) {
  return line({row.name, sets_text(row), spread_text(row, judged), difference_text(row.moved, judged), mean_text(row, figure_kind("gini")),
               class_information_text(row, figure_kind("class_information"))});
}

std::string family_tables(const StudyTable& table) {
  const FigureKind& judged = figure_kind(table.judged_by);
  std::vector<std::string> families;
  for (const TableRow& row : table.rows)
    if (!row.family.empty() && !row.runs.empty() && std::ranges::find(families, row.family) == families.end())
      families.push_back(row.family);
  const auto base = std::ranges::find(table.rows, table.base_row, &TableRow::name);
  std::string text;
  for (const std::string& family : families) {
    text += fmt::format("\n## {}\n\n", family);
    text += header({"row", "sets", judged.title, "difference to " + table.base_row, "Gini", "class info"});
    if (base->family != family && !base->runs.empty()) text += family_line(*base, judged);
    for (const TableRow& row : table.rows)
      if (row.family == family && !row.runs.empty()) text += family_line(row, judged);
  }
  return text;
}

/// "`ermoe/seed-0` 86.09": its folder within the study's, and what it reached.
std::string run_text(const RunFigures& run, const FigureKind& judged) {
  const std::filesystem::path folder(run.folder);
  std::string text = fmt::format("`{}`", (folder.parent_path().filename() / folder.filename()).string());
  if (const auto found = run.values.find(judged.key); found != run.values.end()) text += fmt::format(" {}", scaled(judged, found->second));
  return text;
}

std::string origins(const StudyTable& table) {
  const FigureKind& judged = figure_kind(table.judged_by);
  std::string base;
  for (const auto& [key, value] : table.base) base += fmt::format("{}{} {}", base.empty() ? "" : ", ", key, value);
  std::string text = fmt::format("\n## Settings and runs\n\nThe base: {}.\n\n", base.empty() ? "the program's defaults" : base);
  text += header({"row", "sets", "runs, " + std::string(judged.title)});
  for (const TableRow& row : table.rows) {
    std::string folders;
    for (const RunFigures& run : row.runs) folders += fmt::format("{}{}", folders.empty() ? "" : ", ", run_text(run, judged));
    text += line({row.name, sets_text(row), folders});
  }
  return text;
}

/// Full precision, with which a table is made again; empty where there is nothing.
std::string exact(const std::optional<double>& value) { return value ? fmt::format("{}", *value) : ""; }

ordered_json json_of(const Figures& figures) {
  ordered_json out = ordered_json::object();
  for (const auto& [key, value] : figures) out[key] = value;
  return out;
}

ordered_json json_of(const std::vector<LayerFigures>& layers) {
  ordered_json out = ordered_json::array();
  for (const LayerFigures& layer : layers) {
    ordered_json one = {{"block", layer.block}};
    one.update(json_of(layer.values));
    out.push_back(one);
  }
  return out;
}

ordered_json json_of(const Courses& courses) {
  ordered_json out = ordered_json::object();
  for (const auto& [what, points] : courses)
    for (const CoursePoint& point : points) out[what].push_back({point.step, point.value});
  return out;
}

const char* name_of(Over over) { return over == Over::seeds ? "seeds" : over == Over::samples ? "samples" : "nothing"; }

std::string csv_of(const std::optional<RowDifference>& d) {
  if (!d) return ",,,,";
  if (!d->interval) return fmt::format(",{},,,{}", d->mean, name_of(d->over));
  return fmt::format(",{},{},{},{}", d->mean, d->interval->low, d->interval->high, name_of(d->over));
}

ordered_json json_of(const RowDifference& d) {
  ordered_json out = {{"mean", d.mean}, {"pairs", d.pairs}, {"interval_over", name_of(d.over)}, {"interval", nullptr}};
  if (d.interval) out["interval"] = {d.interval->low, d.interval->high};
  return out;
}

ordered_json json_of(const TableRow& row) {
  ordered_json out = {{"name", row.name}, {"family", row.family}, {"sets", ordered_json::object()}, {"values", ordered_json::object()}};
  for (const auto& [key, value] : row.sets) out["sets"][key] = value;
  for (const auto& [key, spread] : row.values) {
    out["values"][key] = {{"mean", spread.mean}, {"deviation", nullptr}};
    if (spread.deviation) out["values"][key]["deviation"] = *spread.deviation;
  }
  out["difference"] = row.difference ? json_of(*row.difference) : ordered_json(nullptr);
  out["difference_to_base"] = row.moved ? json_of(*row.moved) : ordered_json(nullptr);
  out["layers"] = json_of(row.layers);
  out["over_training"] = json_of(row.courses);
  out["runs"] = ordered_json::array();
  for (const RunFigures& run : row.runs)
    out["runs"].push_back({{"seed", run.seed},
                           {"folder", run.folder},
                           {"at_once", run.at_once},
                           {"values", json_of(run.values)},
                           {"layers", json_of(run.layers)}});
  return out;
}

}  // namespace

std::string table_markdown(const StudyTable& table) {
  std::string text = fmt::format("# {}\n\n{}", table.name, table.about.empty() ? "" : table.about + "\n\n");
  return text + main_table(table) + notes(table) + layer_table(table) + course_table(table) + family_tables(table) + origins(table);
}

std::string table_csv(const StudyTable& table) {
  std::string text = "row,family,sets,seeds";
  for (const char* to : {"baseline", "base"}) text += fmt::format(",difference_to_{0},low_to_{0},high_to_{0},interval_to_{0}", to);
  for (const FigureKind& kind : figure_kinds()) text += fmt::format(",{},{}_deviation", kind.key, kind.key);
  text += "\n";
  for (const TableRow& row : table.rows) {
    text += fmt::format("{},{},{},{}", csv_field(row.name), csv_field(row.family), csv_field(sets_text(row)), row.runs.size());
    text += csv_of(row.difference) + csv_of(row.moved);
    for (const FigureKind& kind : figure_kinds()) {
      const auto found = row.values.find(kind.key);
      text += found == row.values.end() ? ",," : fmt::format(",{},{}", found->second.mean, exact(found->second.deviation));
    }
    text += "\n";
  }
  return text;
}

std::string table_json(const StudyTable& table) {
  ordered_json out = {{"name", table.name},           {"about", table.about},         {"baseline", table.baseline},
                      {"base_row", table.base_row},   {"judged_by", table.judged_by}, {"base", ordered_json::object()},
                      {"rows", ordered_json::array()}};
  for (const auto& [key, value] : table.base) out["base"][key] = value;
  for (const TableRow& row : table.rows) out["rows"].push_back(json_of(row));
  return out.dump(1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace ermoe
