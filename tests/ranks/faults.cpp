// ermoe-train, but one rank gets a signal in a phase of a step. tests/faults.sh starts it under mpirun and looks at what the others say.
//   ermoe_tests_ranks_faults WHAT RANK STEP PHASE TIME-OUT SETTINGS…    WHAT: kill stop wake hang; TIME-OUT: of the watch, in seconds
#include "core/ranks.h"
#include "tools/command_line.h"
#include "tools/main_guard.h"
#include "tools/thread_waiting.h"
#include "tools/trainer.h"

#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace ermoe;

struct Fault {
  std::string what, phase;
  int rank = 0;
  int64_t step = 0;
  double timeout_s = 0;
};

void wait_s(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

void strike(const std::string& what) {
  wait_s(0.6);  // until the others wait, and know where this rank is
  std::printf("fault at %.3f of process %d\n", std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(),
              static_cast<int>(::getpid()));
  std::fflush(stdout);
  if (what == "kill") std::raise(SIGKILL);
  if (what == "stop" || what == "wake") std::raise(SIGSTOP);
  if (what == "hang") wait_s(60);
}

int train(const std::vector<const char*>& words, std::unique_ptr<Ranks>& ranks) {
  constexpr size_t own = 6;  // the program's name and the fault
  check_input(words.size() >= own, "say WHAT RANK STEP PHASE TIME-OUT SETTINGS…");
  const Fault fault{
      .what = words[1], .phase = words[4], .rank = std::atoi(words[2]), .step = std::atoll(words[3]), .timeout_s = std::atof(words[5])};
  std::vector<const char*> settings(words.begin() + own, words.end());
  settings.insert(settings.begin(), words[0]);
  const CommandLine line = parse_command_line("faults", "Trains until a rank fails.", static_cast<int>(settings.size()), settings.data());
  ranks = Ranks::join("faults", fault.timeout_s);
  Trainer trainer(line.config, ranks.get());
  trainer.on_phase([&](int64_t step, const char* phase) {
    if (ranks->world().rank() == fault.rank && step == fault.step && phase == fault.phase) strike(fault.what);
  });
  return trainer.run();
}

}  // namespace

int main(int argc, char** argv) {
  ermoe::settle_thread_waiting(argv);
  std::unique_ptr<ermoe::Ranks> ranks;
  return ermoe::guard_main(
      "faults", [&] { return train(std::vector<const char*>(argv, argv + argc), ranks); },
      [&](const std::string& message, int code) {
        if (ranks) ranks->watch().stop(message, code);
      });
}
