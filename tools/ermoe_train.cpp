// ermoe-train: trains, resumes, and evaluates while it trains. The loop is tools/trainer.h.
#include "core/ranks.h"
#include "tools/command_line.h"
#include "tools/cross_validation.h"
#include "tools/main_guard.h"
#include "tools/thread_waiting.h"
#include "tools/trainer.h"

#include <cstdio>

int main(int argc, char** argv) {
  ermoe::settle_thread_waiting(argv);
  std::unique_ptr<ermoe::Ranks> ranks;
  const auto train = [&] {
    const ermoe::CommandLine line =
        ermoe::parse_command_line("ermoe-train", "Trains a sparse mixture-of-experts vision transformer.", argc, argv);
    if (!line.help.empty()) {
      std::fputs(line.help.c_str(), stdout);
      return 0;
    }
    ranks = ermoe::Ranks::join("ermoe-train", line.config.parallel.timeout);
    if (ermoe::wants_cross_validation(line.config)) return ermoe::cross_validate(line.config, ranks.get());
    return ermoe::Trainer(line.config, ranks.get()).run();
  };
  return ermoe::guard_main("ermoe-train", train, [&](const std::string& message, int code) {
    if (ranks) ranks->watch().stop(message, code);
  });
}
