// Everything that the report's page says of one run, as JSON. Read next: tools/report_curves.h, tools/report_weights.h,
// tools/report_samples.h, tools/report_volumes.h; what the page makes of it: tools/report/sections.js.
#pragma once

#include "tools/engine.h"
#include "tools/pipeline.h"

#include <nlohmann/json_fwd.hpp>

#include <string>

namespace ermoe {

struct ReportOptions {
  std::string data;     // data set; empty: the run's own
  std::string split;    // "train" or "test"; empty: test where there is one
  int64_t images = 12;  // pictures of each kind
};

/// A run's folder, and which of its weights count: its folder again (the best ones), or a checkpoint's.
struct ReportedRun {
  std::string folder, weights;
};

/// Of a run, evaluated on the data set where that can be read: else a note in it says why not, and what
/// comes from images is left out. `note` takes sentences for the user. Throws `InputError` for a folder that holds no whole run.
nlohmann::ordered_json report_run(Engine& engine, const ReportedRun& run, const ReportOptions& options, int threads, const WarnFn& note);

}  // namespace ermoe
