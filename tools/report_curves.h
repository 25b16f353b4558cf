// What a run wrote down while it trained, for the report: its metrics and its settings. Read first: tools/metrics_log.h.
#pragma once

#include "tools/run_config.h"

#include <nlohmann/json_fwd.hpp>

#include <string>
#include <vector>

namespace ermoe {

/// metrics.jsonl by columns, for each split: {"train": {"step": […], "loss": […]}, "eval": {…}}, null where a row has nothing. Of long runs
/// every so many-th row, and the last. A half-written last line is left out. Throws `InputError` where the file cannot be read, or a line
/// in it is no row of metrics.
nlohmann::ordered_json report_curves(const std::string& run_folder);

/// Settings that are worth a look, each with its default and its value in each run: of one run those that are not the default, of several
/// those that are not the same everywhere.
nlohmann::ordered_json report_settings(const std::vector<RunConfig>& runs);

}  // namespace ermoe
