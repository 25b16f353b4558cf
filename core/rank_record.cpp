#include "core/rank_record.h"

#include <algorithm>
#include <cmath>

namespace ermoe {
namespace {

template <size_t N>
bool ends_within(const std::array<char, N>& field) {
  return std::ranges::find(field, '\0') != field.end();
}

}  // namespace

std::optional<uint64_t> RankRecord::entered(uint64_t id) const {
  const auto found = std::ranges::find(groups, id, &Group::id);
  return found == groups.end() ? std::nullopt : std::optional<uint64_t>(found->entered);
}

bool RankRecord::sound() const {
  return mark == mark_of_this_layout && kind <= Kind::fault && ends_within(phase) && ends_within(collective) && ends_within(text) &&
         std::isfinite(phase_s) && std::isfinite(ordinary_s) && std::isfinite(came_s);
}

void RecordChannel::send(const RankRecord& record) {
  if (!open() || (record.kind == RankRecord::Kind::beat && !unsent_.empty())) return;
  const auto* bytes = reinterpret_cast<const std::byte*>(&record);
  unsent_.insert(unsent_.end(), bytes, bytes + sizeof record);
  flush();
}

void RecordChannel::flush() {
  while (open() && !unsent_.empty()) {
    const std::optional<size_t> taken = socket_.send(unsent_);
    // Where the other end is gone, reading finds that out, after what it sent last.
    if (!taken || *taken == 0) return;
    unsent_.erase(unsent_.begin(), unsent_.begin() + static_cast<std::ptrdiff_t>(*taken));
  }
}

void RecordChannel::end_sending() {
  flush();
  socket_.end_sending();
}

std::optional<RankRecord> RecordChannel::receive() {
  while (open() && came_ < coming_.size()) {
    const std::optional<size_t> more = socket_.receive(std::span(coming_).subspan(came_));
    if (!more) close();
    if (!more || *more == 0) return std::nullopt;
    came_ += *more;
  }
  if (!open()) return std::nullopt;
  RankRecord record;
  std::memcpy(static_cast<void*>(&record), coming_.data(), sizeof record);
  came_ = 0;
  if (record.sound()) return record;
  close();
  return std::nullopt;
}

}  // namespace ermoe
