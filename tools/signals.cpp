#include "tools/signals.h"

#include "core/error.h"

#include <unistd.h>

#include <atomic>

namespace ermoe {
namespace {

constexpr std::array kSignals = {SIGINT, SIGTERM, SIGUSR1};

// The one global of the program: the system calls a handler with the signal's number and nothing else, so what it notes
// must lie where it can find it. A lock-free atomic is all that a handler may touch.
std::atomic<int> first_signal{0};
std::atomic<bool> in_use{false};
static_assert(std::atomic<int>::is_always_lock_free);

void on_signal(int signal) {
  int none = 0;
  const bool first = first_signal.compare_exchange_strong(none, signal);
  if (!first && signal == SIGINT) ::_exit(128 + SIGINT);
}

}  // namespace

StopSignals::StopSignals() {
  check(!in_use.exchange(true), "[signals] signals are caught already");
  first_signal = 0;
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;  // reading and writing go on as if nothing had come
  sigemptyset(&action.sa_mask);
  for (size_t i = 0; i < kSignals.size(); ++i) ::sigaction(kSignals[i], &action, &before_[i]);
}

StopSignals::~StopSignals() {
  for (size_t i = 0; i < kSignals.size(); ++i) ::sigaction(kSignals[i], &before_[i], nullptr);
  in_use = false;
}

int StopSignals::received() const { return first_signal; }

std::string_view name_of_signal(int signal) {
  switch (signal) {
    case SIGINT: return "SIGINT";
    case SIGTERM: return "SIGTERM";
    case SIGUSR1: return "SIGUSR1";
    default: return {};
  }
}

}  // namespace ermoe
