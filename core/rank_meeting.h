// How the watches of ranks find each other: rank 0 opens a door and invites; the others come with the token of the invitation. What they
// then say to each other: core/rank_watch.h.
#pragma once

#include "core/rank_judge.h"
#include "core/rank_record.h"

#include <functional>
#include <span>
#include <string>
#include <vector>

namespace ermoe {

/// Rank 0's: listens on every interface, on a port that the system chooses.
class RankDoor {
 public:
  RankDoor();

  /// What the others need: port, token and this machine's addresses.
  std::string invitation() const;
  /// The channels to all ranks, by rank; that of rank 0 is not open. Meanwhile those who came hear `beat` four times a second. Throws
  /// `InputError` naming a rank that has not come within `seconds`. Whoever does not show the token is sent away.
  std::vector<RecordChannel> admit(std::span<const RankName> names, double seconds, const std::function<RankRecord()>& beat);

 private:
  /// A connection that has not shown the token.
  struct Guest {
    RecordChannel channel;
    double since = 0;
  };
  void look_after(std::vector<Guest>& guests, std::vector<RecordChannel>& ranks);

  Listener listener_;
  std::string token_;
};

/// Another rank's channel to rank 0, which must be in `admit`. Throws `InputError` naming both hosts where no address leads there.
RecordChannel reach_rank_0(std::span<const RankName> names, int rank, const std::string& invitation);

}  // namespace ermoe
