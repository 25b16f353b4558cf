// Run folders as ermoe-train and ermoe-eval would leave them, made of a few lines: for tests of what reads them.
#pragma once

#include "core/file_io.h"
#include "core/json.h"
#include "tests/tools/temp_folder.h"
#include "tools/config_io.h"
#include "tools/study_runs.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <string>

namespace ermoe::testing {

inline Study made_study(const std::string& text) { return parse_study(parse_json(text, "s.json"), "s.json"); }

/// Begins a run: settings asked for and recorded, a checkpoint of `step`, metrics up to there.
inline void make_begun(const TempFolder& folder, const StudyRun& run, int64_t step) {
  const std::string inside = run.folder.substr(folder.path().string().size() + 1);
  prepare(run);
  folder.file(inside + "/config.json", config_to_json(run.asked));
  folder.file(inside + "/checkpoints/latest", fmt::format("step-{}\n", step));
  folder.file(inside + "/metrics.jsonl", fmt::format(R"({{"step":1,"split":"train","epoch":0.1,"images_per_s":10,"memory_mib":50}}
no row at all
{{"step":5,"split":"train","epoch":0.5,"images_per_s":200,"memory_mib":60,"purity_router":0.5}}
{{"step":6,"split":"eval","epoch":0.6,"block1/churn":-1,"block3/churn":-1}}
{{"step":8,"split":"train","epoch":0.8,"images_per_s":300,"memory_mib":55,"purity_router":-0.25}}
{{"step":{0},"split":"eval","epoch":{1},"block1/churn":0.2,"block3/churn":0.4}}
{{"step":9999,"sp)",
                                                     step, static_cast<double>(step) / 10));
}

/// And ends it, with two layers of experts.
inline void make_done(const TempFolder& folder, const StudyRun& run, double accuracy, const std::string& predictions = {}) {
  make_begun(folder, run, 10);
  const std::string inside = run.folder.substr(folder.path().string().size() + 1);
  const std::string layer = R"({{"block":{},"gini":{},"max_over_mean":1.5,"dead_experts":1,"fallback_rate":0,"overlap":0.25,"churn":null,)"
                            R"("class_information":0.4,"class_information_null":0.01,"load":[0.5,0.5]}})";
  folder.file(inside + "/evaluation.json", fmt::format(R"({{"loss":0.5,"accuracy":{},"routing":[{},{}]}})", accuracy,
                                                       fmt::format(fmt::runtime(layer), 1, 0.1), fmt::format(fmt::runtime(layer), 3, 0.3)));
  if (!predictions.empty()) folder.file(inside + "/test_predictions.csv", predictions);
}

}  // namespace ermoe::testing
