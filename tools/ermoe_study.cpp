// ermoe-study: runs what is missing of a study (docs/studies.md), and makes its table. The work is done in tools/study_*.h.
#include "core/error.h"
#include "core/file_io.h"
#include "tools/child_process.h"
#include "tools/command_line.h"
#include "tools/config_check.h"
#include "tools/device_choice.h"
#include "tools/main_guard.h"
#include "tools/signals.h"
#include "tools/study_forecast.h"
#include "tools/study_schedule.h"
#include "tools/study_table.h"

#include <fcntl.h>
#include <sys/file.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>

namespace ermoe {
namespace {

namespace fs = std::filesystem;

constexpr int64_t jobs_on_a_gpu = 2;  // while one's host prepares a step, the other's computes

constexpr const char* help =
    "ermoe-study: trains what is missing of a study, and makes its table (docs/studies.md).\n"
    "\n"
    "usage: ermoe-study STUDY.json [--data PATH] [--out FOLDER] [--SETTING VALUE ...]\n"
    "\n"
    "  --out FOLDER      of the study; as a rule runs/NAME\n"
    "  --jobs N          runs at once; 0: 1 on a CPU, 2 on a GPU\n"
    "  --only ROW,ROW    run these rows alone; the table has whatever is there\n"
    "  --seeds N,N       run these seeds alone, likewise\n"
    "  --dry-run         say what would run\n"
    "  --table-only      run nothing\n"
    "  --SETTING VALUE   changes the base of all rows; ermoe-train --help lists the settings\n";

struct Options {
  std::string study, out;
  std::vector<std::string> only;
  std::vector<uint64_t> seeds;
  std::vector<Assignment> flags;
  int64_t jobs = 0;
  bool dry_run = false, table_only = false;
};

/// The study's folder is what --out names here, not a run's.
void take_out(Options& options) {
  const auto is_out = [](const Assignment& flag) { return flag.key == "train.out"; };
  for (const Assignment& flag : options.flags)
    if (is_out(flag)) options.out = flag.text;
  std::erase_if(options.flags, is_out);
}

bool parse(int argc, char** argv, Options& options) {
  CLI::App app{"Trains what is missing of a study, and makes its table.", "ermoe-study"};
  app.add_option("study", options.study, "JSON file")->required();
  app.add_option("--jobs", options.jobs, "runs at once")->check(CLI::Range(0, 1024));
  app.add_option("--only", options.only, "rows")->delimiter(',')->allow_extra_args(false);
  app.add_option("--seeds", options.seeds, "seeds")->delimiter(',')->allow_extra_args(false);
  CLI::Option* const dry = app.add_flag("--dry-run", options.dry_run, "say what would run");
  app.add_flag("--table-only", options.table_only, "run nothing")->excludes(dry);
  add_setting_flags(app, options.flags);
  if (!parse_flags(app, argc, argv)) return false;
  take_out(options);
  return true;
}

/// Held as long as it lives: two studies at work in one folder would undo each other's runs.
Descriptor lock(const std::string& out) {
  std::error_code error;
  fs::create_directories(out, error);
  Descriptor folder(::open(out.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  check_input(folder.valid(), "{}: the folder cannot be made or opened", out);
  check_input(::flock(folder.get(), LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK, "{}: another ermoe-study is at work in this folder",
              out);
  return folder;
}

/// Those that are asked for, of all of the study.
std::vector<StudyRun> chosen(const Options& options, const Study& study, const std::string& out) {
  std::vector<StudyRun> runs = runs_of(study, out, rows_named(study, options.only));
  const auto left_out = [&](const StudyRun& run) {
    return !options.seeds.empty() && std::ranges::find(options.seeds, run.seed) == options.seeds.end();
  };
  std::erase_if(runs, left_out);
  check_input(!runs.empty(), "--seeds: no row has these seeds");
  return runs;
}

ScheduleOptions schedule_options(const Options& options, const Study& study) {
  const TrainConfig& train = study.base.train;
  ScheduleOptions schedule{
      .jobs = options.jobs, .threads = 0, .train = sibling_program("ermoe-train"), .evaluate = sibling_program("ermoe-eval")};
  if (schedule.jobs == 0) schedule.jobs = decide_device(train.device).gpu ? jobs_on_a_gpu : 1;
  if (schedule.jobs > 1 && train.threads == 0) schedule.threads = std::max<int64_t>(1, resolve_threads(0) / schedule.jobs);
  return schedule;
}

bool any_done(const std::vector<StudyRun>& runs) {
  return std::ranges::any_of(runs, [](const StudyRun& run) { return state_of(run) == RunState::done; });
}

/// Writes the table of all that is done, and prints it.
void tabulate(const Study& study, const std::string& out) {
  const StudyTable table = make_table(study, runs_of(study, out, rows_named(study, {})));
  const std::string markdown = table_markdown(table);
  write_file(out + "/table.md", markdown);
  write_file(out + "/table.csv", table_csv(table));
  write_file(out + "/table.json", table_json(table));
  std::printf("\n%s\nwritten: %s/table.md, table.csv, table.json\n", markdown.c_str(), out.c_str());
}

int run_study(const Options& options) {
  const Study study = read_study(options.study, options.flags);
  const std::string out = options.out.empty() ? "runs/" + study.name : options.out;
  const std::vector<StudyRun> all = runs_of(study, out, rows_named(study, {}));
  const std::vector<StudyRun> runs = chosen(options, study, out);
  require_agreement(all);
  if (options.table_only) {
    check_input(any_done(all), "{}: no run is done", out);
    tabulate(study, out);
    return 0;
  }
  require_data_sets(study, runs);
  const ScheduleOptions schedule = schedule_options(options, study);
  if (options.dry_run) {
    std::fputs(forecast(runs, schedule.jobs).c_str(), stdout);
    return 0;
  }
  const Descriptor held = lock(out);
  const ScheduleResult result = run_missing(runs, schedule);
  if (result.signal != 0) {
    std::printf("%s came: stopped%s. To go on: the same command again\n", std::string(name_of_signal(result.signal)).c_str(),
                result.failed == 0 ? ", all saved" : "");
  }
  if (result.signal == 0 || any_done(all)) tabulate(study, out);
  check(result.failed == 0, "{} of {} runs failed, as told above; the same command tries them again", result.failed,
        result.failed + result.done);
  return 0;
}

int run(int argc, char** argv) {
  Options options;
  if (parse(argc, argv, options)) return run_study(options);
  std::fputs(help, stdout);
  return 0;
}

}  // namespace
}  // namespace ermoe

int main(int argc, char** argv) {
  return ermoe::guard_main("ermoe-study", [&] { return ermoe::run(argc, argv); });
}
