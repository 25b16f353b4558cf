// Which rank keeps the others waiting: conclusions from what ranks last said about themselves. No sockets and no clock in here, so
// that every case can be tested. Who asks: core/rank_watch.cpp, four times a second.
#pragma once

#include "core/rank_record.h"

#include <optional>
#include <span>
#include <string>
#include <vector>

namespace ermoe {

/// Who a rank is, in messages.
struct RankName {
  std::string host;
  int64_t process = 0;
};

/// What is known about one rank.
struct RankView {
  RankRecord last;
  double silent_s = 0;  // since it said that
  bool left = false;    // it ended in good order
};

struct WatchLimits {
  double patience_s = 0;  // how long a rank waits in a collective before the missing one is named
  double silence_s = 0;   // how long a rank may say nothing
};

/// "rank 3 (hostC, process 4711)"
std::string who(std::span<const RankName> names, int rank);
/// "in step 17, backward, in all_reduce number 212"
std::string doing(const RankRecord& record);

/// "rank 3 (…) died in step 17, …": the rank's connection ended without a word.
std::string tell_death(std::span<const RankName> names, int rank, const RankRecord& last);
/// "rank 3 (…) was last heard of … s ago, …".
std::string tell_silence(std::span<const RankName> names, int rank, const RankView& view);

/// The sentence about what keeps the run from going on, or nothing. Looked for are, in this order: a rank that says nothing;
/// ranks that came to the same place in the order of collectives with different ones; a rank that does not come to a collective in
/// which another has waited for longer than `patience_s`; a collective that does not end although all have come. A rank in an
/// endless phase is only expected to say something.
std::optional<std::string> judge(std::span<const RankView> ranks, std::span<const RankName> names, const WatchLimits& limits);

}  // namespace ermoe
