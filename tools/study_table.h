// A study's runs joined row by row: means over seeds and paired differences to the baseline; and how they are written down.
// Read first: tools/study_figures.h, tools/study_statistics.h.
#pragma once

#include "tools/study_figures.h"
#include "tools/study_plan.h"
#include "tools/study_statistics.h"

#include <map>
#include <optional>
#include <string>
#include <vector>

namespace ermoe {

struct TableRow {
  std::string name, family;
  std::vector<SettingText> sets;
  std::vector<RunFigures> runs;             // by seed; empty: none is done
  std::map<std::string, Spread> values;     // by figure_kinds, of the runs that have it
  std::vector<LayerFigures> layers;         // means over runs
  Courses courses;                          // likewise, at steps that all runs measured
  std::optional<RowDifference> difference;  // to the baseline; nothing for itself, and where no seed is common to both
  std::optional<RowDifference> moved;       // to the row of the base, likewise
};

struct StudyTable {
  std::string name, about, baseline;
  std::string base_row;           // the row that sets nothing, with which families are compared; the baseline where there is none
  std::string judged_by;          // "accuracy", "mae" or "rsum"
  std::vector<SettingText> base;  // what the base has otherwise than the program's defaults
  std::vector<TableRow> rows;
  std::vector<std::string> unread;  // runs that are done but left out, each with why
};

/// From the folders of the runs that are done.
StudyTable make_table(const Study& study, const std::vector<StudyRun>& runs);

/// `row` beside `baseline`: by seed where two or more are common to both; else by sample where both know the same samples.
std::optional<RowDifference> compare(const std::vector<RunFigures>& row, const std::vector<RunFigures>& baseline,
                                     const std::string& figure);

std::string table_markdown(const StudyTable& table);
/// A line a row, full precision. What was timed stands last.
std::string table_csv(const StudyTable& table);
/// Everything: each run's figures, each layer's.
std::string table_json(const StudyTable& table);

}  // namespace ermoe
