// A program as one of many: joins the other ranks that a launcher started, checks that each reaches each, and watches over them.
// One process alone is the same to whoever uses it, with a communicator of one and a watch that watches nobody. `main` owns it:
//
//   std::unique_ptr<Ranks> ranks;
//   return guard_main("program", [&] { ranks = Ranks::join("program", timeout); … return 0; },
//                     [&](const std::string& message, int code) { if (ranks) ranks->watch().stop(message, code); });
#pragma once

#include "core/comm.h"
#include "core/rank_watch.h"

#include <memory>
#include <string>

namespace ermoe {

class MpiProcess;

class Ranks {
 public:
  /// Uses MPI where a launcher's variables say that it started more than one process, else no MPI at all. `program` starts what is
  /// printed; within `timeout_s` seconds the run ends when a rank fails. Rank 0 prints who is there. Throws `InputError` where
  /// ranks do not find each other, and in a build without MPI where there are several.
  static std::unique_ptr<Ranks> join(const std::string& program, double timeout_s);
  /// Waits for the other ranks and ends MPI, unless one has failed.
  ~Ranks();
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;

  Communicator& world() { return *world_; }
  RankWatch& watch() { return watch_; }

 private:
  Ranks() = default;
  void meet(const std::string& program, double timeout_s, const Launch& launch);
  void start_watch(WatchOptions options);
  void exchange_with_all(const WatchOptions& options);

  RankWatch watch_;
  std::shared_ptr<MpiProcess> mpi_;  // none: one process alone
  std::unique_ptr<Communicator> world_ = std::make_unique<SelfCommunicator>();
};

}  // namespace ermoe
