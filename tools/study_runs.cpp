#include "tools/study_runs.h"

#include "core/error.h"
#include "core/file_io.h"
#include "core/json.h"
#include "tools/config_io.h"
#include "tools/metrics_log.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <filesystem>

namespace ermoe {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr size_t largest_log = size_t{256} << 20, largest_note = 4096;

// Where a run computes and how fast: its figures are the same, but for the last bits.
constexpr std::array not_compared = {"train.out",    "train.name",     "train.threads", "train.device",
                                     "data.workers", "data.gpu_cache", "data.cache",    "data.decoder"};

RunConfig settings_in(const std::string& path) {
  RunConfig config;
  apply_json(config, read_json(path, kSettingsLimits), path);
  return config;
}

double number(const json& row, const char* key) {
  const auto found = row.find(key);
  return found != row.end() && found->is_number() ? found->get<double>() : -1;
}

/// Of the run's steps, at this row of its metrics.
double share_at(const json& row, const TrainConfig& train) {
  if (train.steps > 0) return number(row, "step") / static_cast<double>(train.steps);
  return number(row, "epoch") / static_cast<double>(train.epochs);
}

/// The step of the newest checkpoint; -1 where there is none.
int64_t saved_step(const StudyRun& run) {
  const std::string path = run.file("checkpoints/latest");
  if (!path_exists(path)) return -1;
  const std::string name = read_file(path, largest_note);
  constexpr std::string_view prefix = "step-";
  return name.starts_with(prefix) ? std::strtoll(name.c_str() + prefix.size(), nullptr, 10) : -1;
}

/// Whether the newest checkpoint is of the last step: a row of metrics says so.
bool all_steps_saved(const StudyRun& run, int64_t step) {
  constexpr double whole = 1 - 1e-9;
  return std::ranges::any_of(metrics_of(run), [&](const json& row) {
    return number(row, "step") == static_cast<double>(step) && share_at(row, run.asked.train) >= whole;
  });
}

}  // namespace

std::string StudyRun::file(std::string_view file_name) const { return fmt::format("{}/{}", folder, file_name); }

std::vector<StudyRun> runs_of(const Study& study, const std::string& out, const std::vector<size_t>& rows) {
  std::vector<StudyRun> runs;
  size_t most = 0;
  for (const size_t row : rows) most = std::max(most, study.rows[row].seeds.size());
  for (size_t i = 0; i < most; ++i) {
    for (const size_t row : rows) {
      const StudyRow& of = study.rows[row];
      if (i >= of.seeds.size()) continue;
      StudyRun run{.row = row,
                   .seed = of.seeds[i],
                   .name = fmt::format("{}, seed {}", of.name, of.seeds[i]),
                   .folder = fmt::format("{}/{}/seed-{}", out, of.name, of.seeds[i]),
                   .asked = of.config};
      run.asked.train.seed = run.seed;
      run.asked.train.out = run.folder;
      run.asked.train.name = of.name;
      runs.push_back(std::move(run));
    }
  }
  return runs;
}

RunState state_of(const StudyRun& run) {
  if (path_exists(run.file(evaluation_file))) return RunState::done;
  const int64_t step = saved_step(run);
  if (step < 0) return RunState::absent;
  return all_steps_saved(run, step) ? RunState::trained : RunState::begun;
}

double progress_of(const StudyRun& run) {
  double share = 0;
  for (const json& row : metrics_of(run)) share = std::max(share, share_at(row, run.asked.train));
  return std::min(share, 1.0);
}

std::vector<std::string> disagreements(const StudyRun& run) {
  const std::string path = run.file(asked_file);
  if (!path_exists(path)) {
    check_input(!path_exists(run.file("config.json")), "{} holds a run that no study began; choose another --out", run.folder);
    return {};
  }
  if (state_of(run) == RunState::absent) return {};  // nothing is kept of it
  const RunConfig before = settings_in(path);
  const std::vector<SettingText> back = changed_settings(before, run.asked);
  std::vector<std::string> texts;
  for (const auto& [key, now] : changed_settings(run.asked, before)) {
    if (std::ranges::find(not_compared, key) != not_compared.end() || (key == "data.path" && now.empty())) continue;
    const auto old = std::ranges::find(back, key, &SettingText::first);
    texts.push_back(fmt::format("{} {}, not {}", key, old->second.empty() ? "(none)" : old->second, now.empty() ? "(none)" : now));
  }
  return texts;
}

void require_agreement(const std::vector<StudyRun>& runs) {
  for (const StudyRun& run : runs) {
    const std::vector<std::string> texts = disagreements(run);
    check_input(texts.empty(), "row {}: {} was run with {}; choose another --out, or remove that folder",
                run.name.substr(0, run.name.rfind(',')), run.folder, fmt::join(texts, "; with "));
  }
}

void prepare(const StudyRun& run) {
  std::error_code error;
  fs::create_directories(run.folder, error);
  check_input(!error, "{}: the folder cannot be made: {}", run.folder, error.message());
  // By what stays, it is known whose folder this is, should this be interrupted.
  for (const auto& entry : fs::directory_iterator(run.folder))
    if (entry.path().filename() != asked_file) fs::remove_all(entry.path());
  write_file(run.file(asked_file), config_to_json(run.asked));
}

RunRecord record_of(const StudyRun& run) {
  RunRecord record;
  const std::string path = run.file(record_file);
  if (!path_exists(path)) return record;
  const json saved = read_json(path, kSettingsLimits);
  check_input(saved.is_object(), "{}: is no record of a run", path);
  record.at_once = static_cast<int64_t>(std::max(1.0, number(saved, "at_once")));
  record.seconds = std::max(0.0, number(saved, "seconds"));
  return record;
}

void write_record(const StudyRun& run, const RunRecord& record) {
  const json saved = {{"at_once", record.at_once}, {"seconds", record.seconds}};
  write_file(run.file(record_file), saved.dump(1) + "\n");
}

std::vector<json> metrics_of(const StudyRun& run) {
  const std::string path = run.file("metrics.jsonl");
  std::vector<json> rows;
  if (!path_exists(path)) return rows;
  const std::string text = read_file(path, largest_log);
  for (const std::string_view line : whole_lines(text)) {
    json row = json::parse(line, nullptr, false);
    if (row.is_object()) rows.push_back(std::move(row));  // a machine that lost its power may leave a line that is none
  }
  return rows;
}

}  // namespace ermoe
