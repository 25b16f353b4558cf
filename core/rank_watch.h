// The watch over ranks: who dies, stops or hangs ends the whole run, with a sentence that names it, instead of leaving the others
// waiting for ever. It works beside MPI, whose calls do not return when another rank is gone: each rank's watch has a thread and
// a TCP connection to that of rank 0, and says four times a second what its rank does. Rank 0 judges (core/rank_judge.h) and
// tells the others; where rank 0 is the one that is gone, the others see that by themselves.
#pragma once

#include "core/rank_judge.h"

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace ermoe {

/// Whether a phase may take any time: in an `endless` one a rank must be alive, and no more.
enum class Patience { ordinary, endless };

struct WatchOptions {
  std::string program;          // starts the line that is printed
  int rank = 0;                 // of this process
  std::vector<RankName> names;  // of all ranks
  double timeout_s = 60;        // within it the run ends
  /// Takes the line and the exit code where a fault ends this rank; none: the line goes to stderr and the process ends by `_exit`.
  std::function<void(const std::string& line, int code)> leave;

  int size() const { return static_cast<int>(names.size()); }
  WatchLimits limits() const;
};

/// Made idle: it then watches nobody, and every call below does nothing. All but `invite`, `admit` and `join` may be called from
/// any thread.
class RankWatch {
 public:
  static constexpr uint64_t world_group = RankRecord::world_group;
  /// Where a host waits for what its GPU does with those of other ranks, it comes to this group's collective number `step` (from 1).
  static constexpr uint64_t steps_group = RankRecord::steps_group;

  RankWatch();
  /// Says goodbye where nothing else was said.
  ~RankWatch();
  RankWatch(const RankWatch&) = delete;
  RankWatch& operator=(const RankWatch&) = delete;

  /// Rank 0 listens. Returns what the others need in order to join: addresses, port and a random token.
  std::string invite(WatchOptions options);
  /// Rank 0 lets all others in and begins to watch. Throws `InputError` naming a rank and the hosts where one has not come within
  /// `seconds`.
  void admit(double seconds);
  /// Another rank joins rank 0, which must be in `admit`, and begins to watch. Throws `InputError` with both hosts where it cannot.
  void join(WatchOptions options, const std::string& invitation);

  /// What this rank does from now on. `phase` is a string literal: "forward", "loading data".
  void at(int64_t step, const char* phase, Patience patience = Patience::ordinary);
  /// This rank belongs to the communicator `group`, any number but 0 that is the same on all its members.
  void belong(uint64_t group);
  void quit(uint64_t group);
  /// This rank comes to a collective, its group's `number`-th from 1, and leaves it.
  void enter(uint64_t group, const char* collective, uint64_t number, int64_t bytes);
  void leave();
  /// Seconds that this rank has spent in collectives so far, most of which it waited for others.
  double seconds_in_collectives() const;

  /// What this rank's line shall end with, like "the last checkpoint is whole"; empty: nothing.
  void advise(const std::string& sentence);
  /// Called once when a fault ends this rank, in a thread of its own, which is not waited for longer than two seconds.
  void on_fault(std::function<void()> callback);

  /// This rank fails with that sentence: the others print it and end with `code`. Returns when they were told.
  void stop(const std::string& sentence, int code);
  /// This rank ends in good order.
  void goodbye();
  /// Whether `stop` was called.
  bool stopped() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
  bool stopped_ = false;
};

}  // namespace ermoe
