// What ranks tell each other beside MPI: one record of a fixed size, and a channel that carries such records over a socket.
// Who sends which, and when: core/rank_watch.h. What is concluded from them: core/rank_judge.h.
#pragma once

#include "core/sockets.h"

#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string_view>
#include <type_traits>
#include <vector>

namespace ermoe {

/// One record. Every rank of a run is the same program, so it travels as it lies in memory.
struct RankRecord {
  /// `stop`: the sender fails; `ended`: another rank did so, says rank 0; `fault`: another rank is gone or hangs.
  enum class Kind : uint32_t { hello, welcome, beat, goodbye, stop, ended, fault };
  static constexpr uint64_t mark_of_this_layout = 0x65726d6f652d7231;
  static constexpr size_t max_groups = 8;
  /// Groups that every rank belongs to from the start: the communicator of all ranks; and those who wait for their GPUs, where a step is
  /// what a collective is elsewhere.
  static constexpr uint64_t world_group = 1, steps_group = 2;

  /// A communicator that the rank belongs to.
  struct Group {
    uint64_t id = 0;       // 0: none
    uint64_t entered = 0;  // the number of its last collective that this rank came to
  };

  uint64_t mark = mark_of_this_layout;
  Kind kind = Kind::beat;
  int32_t rank = 0;
  int32_t code = 1;       // exit code, of stop, ended and fault
  int32_t endless = 0;    // in a phase that may take any time
  int64_t step = -1;      // -1: before the first one
  double phase_s = 0;     // how long in this phase
  double ordinary_s = 0;  // how long since the last phase that may take any time
  double came_s = 0;      // how long ago it came to its last collective, which it may have left
  int64_t bytes = 0;      // that it moves, of this rank
  uint64_t group = 0;     // whose collective it is in; 0: in none
  uint64_t number = 0;    // of that collective
  std::array<Group, max_groups> groups;
  std::array<char, 24> phase{};
  std::array<char, 24> collective{};
  std::array<char, 512> text{};  // token, or a sentence

  bool inside() const { return group != 0; }
  /// The last collective of a group that this rank came to; nothing where it is no member.
  std::optional<uint64_t> entered(uint64_t id) const;
  /// Whether what came from outside can be read: text ends within its field, numbers are in range.
  bool sound() const;
};
static_assert(std::is_trivially_copyable_v<RankRecord>);

/// Writes as much of a text as fits, with an end mark. A character of several bytes is not cut in the middle.
template <size_t N>
void put_text(std::array<char, N>& field, std::string_view text) {
  size_t length = text.size() < N ? text.size() : N - 1;
  while (length < text.size() && length > 0 && (static_cast<unsigned char>(text[length]) & 0xc0) == 0x80) --length;
  field.fill('\0');
  std::memcpy(field.data(), text.data(), length);
}

/// Sends and receives whole records; never blocks.
class RecordChannel {
 public:
  RecordChannel() = default;
  explicit RecordChannel(Socket socket) : socket_(std::move(socket)) {}

  bool open() const { return socket_.open(); }
  void close() { socket_.close(); }
  const Socket& socket() const { return socket_; }

  /// Sends now what the system takes and keeps the rest for `flush`. A beat is dropped where the one before still waits: the other
  /// end does not read.
  void send(const RankRecord& record);
  void flush();
  /// Sends no more; see `Socket::end_sending`.
  void end_sending();
  /// The next record that has come whole. The channel closes itself at the end of the stream, and on anything but sound records.
  std::optional<RankRecord> receive();

 private:
  Socket socket_;
  std::vector<std::byte> unsent_;
  std::array<std::byte, sizeof(RankRecord)> coming_{};
  size_t came_ = 0;
};

}  // namespace ermoe
