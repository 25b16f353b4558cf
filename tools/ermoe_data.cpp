// ermoe-data: looks at data before anything is trained on it. What it finds out is in tools/inspection.h.
#include "core/error.h"
#include "tools/command_line.h"
#include "tools/config_check.h"
#include "tools/inspection.h"
#include "tools/main_guard.h"
#include "tools/thread_waiting.h"

#include <CLI/CLI.hpp>

#include <cstdio>

namespace ermoe {
namespace {

void note(const std::string& text) { std::fprintf(stderr, "note: %s\n", text.c_str()); }

int run(int argc, char** argv) {
  CLI::App app{"Inspects data files and data sets.", "ermoe-data"};
  std::string path;
  bool decode = false;
  int64_t threads = 0;
  app.require_subcommand(1);
  CLI::App* inspect =
      app.add_subcommand("inspect", "says what a file or data set is; exit code 0 where it is sound, 2 where it is refused");
  inspect->add_option("path", path, "a file of any format read here, a data set, a checkpoint or a run folder")->required();
  inspect->add_flag("--decode", decode, "decode every image of a data set, not a hundred of each part");
  inspect->add_option("--threads", threads, "0: the cores that this process may use")->check(CLI::Range(0, 4096));
  if (!parse_flags(app, argc, argv)) {
    std::fputs(app.help().c_str(), stdout);
    return 0;
  }
  const Inspection found = inspect_path(path, decode ? Look::all : Look::sample, resolve_threads(threads), note);
  std::fputs(found.text.c_str(), stdout);
  check_input(found.fault.empty(), "{}: {}", path, found.fault);
  return 0;
}

}  // namespace
}  // namespace ermoe

int main(int argc, char** argv) {
  ermoe::settle_thread_waiting(argv);
  return ermoe::guard_main("ermoe-data", [&] { return ermoe::run(argc, argv); });
}
