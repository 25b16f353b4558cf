// Everything that all ranks hold, on every rank: for metrics and other small things whose sizes differ from rank to rank.
#pragma once

#include "core/comm.h"

#include <cstring>
#include <functional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

namespace ermoe {

/// The bytes of all ranks one after the other, in the order of ranks.
std::vector<std::byte> gather_bytes(Communicator& comm, std::span<const std::byte> own);

/// The values of all ranks, likewise.
template <typename T>
std::vector<T> gather_from_all(Communicator& comm, const std::vector<T>& own) {
  static_assert(std::is_trivially_copyable_v<T>);
  const std::vector<std::byte> bytes = gather_bytes(comm, std::as_bytes(std::span(own)));
  std::vector<T> all(bytes.size() / sizeof(T));
  if (!all.empty()) std::memcpy(all.data(), bytes.data(), bytes.size());
  return all;
}

/// The text of each rank, by rank.
std::vector<std::string> gather_texts(Communicator& comm, const std::string& own);

/// Rank 0's text, on every rank.
std::string broadcast_text(Communicator& comm, const std::string& of_rank_0);

/// Every rank runs its `work`, which calls no collective. Where it throws at any of them, all throw the sentence of the first of these
/// ranks, as the same kind of error, so that nobody is left waiting for a rank that has failed.
void all_or_none(Communicator& comm, const std::function<void()>& work);

/// Σ over ranks, or the largest of them, in place.
void reduce_over_ranks(Communicator& comm, std::span<double> values, ReduceOp op = ReduceOp::sum);

}  // namespace ermoe
