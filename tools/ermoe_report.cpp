// ermoe-report: one HTML page about a run, or several side by side, that needs no network. What it says of a run: tools/report_run.h; how
// it looks: tools/report/.
#include "core/comm.h"
#include "core/error.h"
#include "core/file_io.h"
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

/// The folders of all runs: those given, and the folds of cross-validations among them.
std::vector<std::string> folders_of(const std::vector<std::string>& given) {
  std::vector<std::string> folders;
  for (const std::string& path : given)
    for (const std::string& one : models_in(path)) {
      check_input(path_exists(one), "{}: there is no such folder", one);
      folders.push_back(run_folder_of(one));
    }
  return folders;
}

/// "fold-1" and "seed-3" alone say little: names that runs share get the folder above in front.
void tell_apart(nlohmann::ordered_json& runs, const std::vector<std::string>& folders) {
  for (size_t i = 0; i < runs.size(); ++i)
    for (size_t j = 0; j < runs.size(); ++j)
      if (i != j && runs[i]["name"] == runs[j]["name"]) runs[i]["name"] = folders[i];
}

int report(const Options& options) {
  const std::vector<std::string> folders = folders_of(options.runs);
  std::vector<RunConfig> configs;
  for (const std::string& folder : folders) configs.push_back(load_config(folder + "/config.json"));
  const int threads = resolve_threads(options.threads);
  Engine engine(threads, 0, options.device);
  if (!engine.gpu && !engine.device_note.empty()) note("computing on the CPU: " + engine.device_note);
  nlohmann::ordered_json data{{"runs", nlohmann::ordered_json::array()}, {"settings", report_settings(configs)}};
  for (const std::string& folder : folders) data["runs"].push_back(report_run(engine, folder, options.report, threads, note));
  tell_apart(data["runs"], folders);
  const std::string first = data["runs"][0]["name"].get<std::string>();
  const std::string title = folders.size() == 1 ? first : fmt::format("{} and {} more", first, folders.size() - 1);
  const std::string page = report_page(title, data), out = options.out.empty() ? options.runs[0] + "/report.html" : options.out;
  write_file(out, page);
  std::printf("report   %s (%.1f MB; opens in any browser, without a network)\n", out.c_str(), static_cast<double>(page.size()) / 1e6);
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
