#include "tools/study_table.h"

#include "core/error.h"

#include <algorithm>

namespace ermoe {
namespace {

const RunFigures* with_seed(const std::vector<RunFigures>& runs, uint64_t seed) {
  const auto found = std::ranges::find(runs, seed, &RunFigures::seed);
  return found == runs.end() ? nullptr : &*found;
}

std::vector<double> values_of(const std::map<std::string, double>& samples) {
  std::vector<double> values;
  for (const auto& [name, value] : samples) values.push_back(value);
  return values;
}

bool same_samples(const std::map<std::string, double>& a, const std::map<std::string, double>& b) {
  return a.size() > 1 &&
         std::ranges::equal(a, b, {}, &std::pair<const std::string, double>::first, &std::pair<const std::string, double>::first);
}

/// Of what the runs call `key`, in all of `kinds` that any of them has.
std::map<std::string, Spread> spreads(const std::vector<RunFigures>& runs) {
  std::map<std::string, Spread> all;
  for (const FigureKind& kind : figure_kinds()) {
    std::vector<double> values;
    for (const RunFigures& run : runs)
      if (const auto found = run.values.find(kind.key); found != run.values.end()) values.push_back(found->second);
    if (!values.empty()) all[kind.key] = spread_of(values);
  }
  return all;
}

/// Means over runs, layer by layer; runs of one row have the same layers.
std::vector<LayerFigures> mean_layers(const std::vector<RunFigures>& runs) {
  if (runs.empty()) return {};
  std::vector<LayerFigures> means = runs[0].layers;
  for (size_t l = 0; l < means.size(); ++l) {
    for (auto& [key, value] : means[l].values) {
      std::vector<double> values;
      for (const RunFigures& run : runs)
        if (l < run.layers.size() && run.layers[l].values.contains(key)) values.push_back(run.layers[l].values.at(key));
      value = spread_of(values).mean;
    }
  }
  return means;
}

std::optional<double> at_step(const Courses& courses, const std::string& what, int64_t step) {
  const auto course = courses.find(what);
  if (course == courses.end()) return std::nullopt;
  const auto point = std::ranges::find(course->second, step, &CoursePoint::step);
  return point == course->second.end() ? std::nullopt : std::optional(point->value);
}

/// Means over runs, at the steps at which all of them measured.
Courses mean_courses(const std::vector<RunFigures>& runs) {
  Courses means;
  if (runs.empty()) return means;
  for (const auto& [what, points] : runs[0].courses) {
    for (const CoursePoint& point : points) {
      std::vector<double> values;
      for (const RunFigures& run : runs)
        if (const auto value = at_step(run.courses, what, point.step)) values.push_back(*value);
      if (values.size() == runs.size()) means[what].push_back({.step = point.step, .value = spread_of(values).mean});
    }
  }
  return means;
}

/// What levers are moved from.
size_t base_row_of(const Study& study) {
  const auto found = std::ranges::find_if(study.rows, [](const StudyRow& row) { return row.sets.empty(); });
  return found == study.rows.end() ? study.baseline : static_cast<size_t>(found - study.rows.begin());
}

}  // namespace

std::optional<RowDifference> compare(const std::vector<RunFigures>& row, const std::vector<RunFigures>& baseline,
                                     const std::string& figure) {
  std::vector<double> own, other;
  const RunFigures *last = nullptr, *last_other = nullptr;
  for (const RunFigures& run : row) {
    const RunFigures* const pair = with_seed(baseline, run.seed);
    if (pair == nullptr) continue;
    own.push_back(run.values.at(figure));
    other.push_back(pair->values.at(figure));
    last = &run, last_other = pair;
  }
  if (own.empty()) return std::nullopt;
  if (own.size() == 1 && same_samples(last->by_sample, last_other->by_sample))
    return difference_over_samples(values_of(last->by_sample), values_of(last_other->by_sample));
  return difference_over_seeds(own, other);
}

StudyTable make_table(const Study& study, const std::vector<StudyRun>& runs) {
  const size_t base = base_row_of(study);
  StudyTable table{.name = study.name,
                   .about = study.about,
                   .baseline = study.rows[study.baseline].name,
                   .base_row = study.rows[base].name,
                   .judged_by = "accuracy",
                   .base = changed_settings(study.base, RunConfig{}),
                   .rows = {},
                   .unread = {}};
  for (const StudyRow& row : study.rows)
    table.rows.push_back({.name = row.name,
                          .family = row.family,
                          .sets = row.sets,
                          .runs = {},
                          .values = {},
                          .layers = {},
                          .courses = {},
                          .difference = {},
                          .moved = {}});
  for (const StudyRun& run : runs) {
    if (state_of(run) != RunState::done) continue;
    try {
      table.rows[run.row].runs.push_back(figures_of(run));
    } catch (const InputError& fault) {
      table.unread.push_back(fmt::format("{}: {}", run.name, fault.what()));
    }
  }
  const std::vector<RunFigures>&baseline = table.rows[study.baseline].runs, &unmoved = table.rows[base].runs;
  for (TableRow& row : table.rows) {
    std::ranges::sort(row.runs, {}, &RunFigures::seed);
    row.values = spreads(row.runs);
    row.layers = mean_layers(row.runs);
    row.courses = mean_courses(row.runs);
    for (const char* key : {"mae", "rsum"})
      if (row.values.contains(key)) table.judged_by = key;
  }
  for (TableRow& row : table.rows) {
    if (row.name != table.baseline) row.difference = compare(row.runs, baseline, table.judged_by);
    if (row.name != table.base_row) row.moved = compare(row.runs, unmoved, table.judged_by);
  }
  return table;
}

}  // namespace ermoe
