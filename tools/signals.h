// Stopping in good order: SIGINT, SIGTERM and SIGUSR1 (a cluster's warning) only note that they came; the training loop
// looks after each step, writes a checkpoint and ends. A second SIGINT ends the program at once.
#pragma once

#include <signal.h>

#include <array>
#include <string_view>

namespace ermoe {

/// Catches the three signals while it lives. There can be one at a time.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  /// The first signal that came; 0: none yet.
  int received() const;
  bool requested() const { return received() != 0; }

 private:
  std::array<struct sigaction, 3> before_;
};

/// "SIGTERM"; empty for what is none of the three.
std::string_view name_of_signal(int signal);

}  // namespace ermoe
