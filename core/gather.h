// Everything that all ranks hold, on every rank: for metrics and other small things whose sizes differ from rank to rank.
#pragma once

#include "core/comm.h"

#include <cstring>
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

/// A text of each rank, by rank.
std::vector<std::string> gather_texts(Communicator& comm, const std::string& own);

/// Σ over ranks, or the largest of them, in place.
void reduce_over_ranks(Communicator& comm, std::span<double> values, ReduceOp op = ReduceOp::sum);

}  // namespace ermoe
