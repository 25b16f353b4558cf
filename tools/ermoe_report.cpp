// ermoe-report: one HTML page about a run, or several side by side, that needs no network. What it says of a run: tools/report_run.h; how
// it looks: tools/report/.
#include "core/comm.h"
#include "core/error.h"
#include "core/file_io.h"
#include "models/checkpoint_store.h"
#include "tools/command_line.h"
#include "tools/config_check.h"
#include "tools/config_io.h"
#include "tools/main_guard.h"
#include "tools/report_curves.h"
#include "tools/report_page.h"
#include "tools/report_run.h"
#include "tools/run_folder.h"
#include "tools/thread_waiting.h"

#include <CLI/CLI.hpp>

#include <nlohmann/json.hpp>

#include <cstdio>
#include <map>

namespace ermoe {
namespace {

struct Options {
  DeviceChoice device = DeviceChoice::auto_;
  std::vector<std::string> runs;
  std::string out;
  int64_t threads = 0;
  ReportOptions report;
};

void note(const std::string& text) { std::fprintf(stderr, "note: %s\n", text.c_str()); }

/// All runs: those given, and the folds of cross-validations among them. Of these the last weights count: the best ones were chosen by
/// those held out.
std::vector<ReportedRun> runs_of(const std::vector<std::string>& given) {
  std::vector<ReportedRun> runs;
  for (const std::string& path : given) {
    const std::vector<std::string> folders = models_in(path);
    for (const std::string& one : folders) {
      check_input(path_exists(one), "{}: there is no such folder", one);
      const std::string folder = run_folder_of(one);
      runs.push_back({folder, folders.size() > 1 ? find_checkpoint(folder, "latest").folder : folder});
    }
  }
  return runs;
}

/// "fold-1" and "seed-3" alone say little: names that runs share give way to whole paths.
void tell_apart(nlohmann::ordered_json& told) {
  std::map<std::string, int> seen;
  for (const auto& run : told) ++seen[run["name"].get<std::string>()];
  for (auto& run : told)
    if (seen[run["name"].get<std::string>()] > 1) run["name"] = run["folder"];
}

int report(const Options& options) {
  const std::vector<ReportedRun> runs = runs_of(options.runs);
  std::vector<RunConfig> configs;
  for (const ReportedRun& run : runs) configs.push_back(load_config(run.folder + "/config.json"));
  const int threads = resolve_threads(options.threads);
  Engine engine(threads, 0, options.device);
  if (!engine.gpu && !engine.device_note.empty()) note("computing on the CPU: " + engine.device_note);
  nlohmann::ordered_json data{{"runs", nlohmann::ordered_json::array()}, {"settings", report_settings(configs)}};
  for (const ReportedRun& run : runs) data["runs"].push_back(report_run(engine, run, options.report, threads, note));
  tell_apart(data["runs"]);
  const std::string first = data["runs"][0]["name"].get<std::string>();
  const std::string title = runs.size() == 1 ? first : fmt::format("{} and {} more", first, runs.size() - 1);
  const std::string page = report_page(title, data),
                    out = options.out.empty() ? run_folder_of(options.runs[0]) + "/report.html" : options.out;
  write_file(out, page);
  std::printf("report     %s (%.1f MB; opens in any browser, without a network)\n", out.c_str(), static_cast<double>(page.size()) / 1e6);
  return 0;
}

int run(int argc, char** argv) {
  CLI::App app{"Writes one HTML page about a run, or about several side by side: curves, loads, where experts look, mistakes.",
               "ermoe-report"};
  Options options;
  app.add_option("runs", options.runs, "run folders (the best checkpoint of each is taken), or those of cross-validations")->required();
  app.add_option("--out", options.out, "the page [report.html in the first run's folder]");
  app.add_option("--images", options.report.images, "pictures of each kind [12]")->check(CLI::Range(int64_t{1}, int64_t{200}));
  app.add_option("--data", options.report.data, "data set; as a rule the one that each run was trained on");
  app.add_option("--split", options.report.split, "test or train; as a rule test where there is one")
      ->check(CLI::IsMember({"test", "train"}));
  add_device_flag(app, options.device);
  app.add_option("--threads", options.threads, "0: the cores that this process may use")->check(CLI::Range(0, 4096));
  if (!parse_flags(app, argc, argv)) {
    std::fputs(app.help().c_str(), stdout);
    return 0;
  }
  refuse_silent_multi_launch();
  return report(options);
}

}  // namespace
}  // namespace ermoe

int main(int argc, char** argv) {
  ermoe::settle_thread_waiting(argv);
  return ermoe::guard_main("ermoe-report", [&] { return ermoe::run(argc, argv); });
}
