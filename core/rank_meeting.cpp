#include "core/rank_meeting.h"

#include "core/error.h"

#include <algorithm>
#include <chrono>
#include <random>
#include <sstream>

namespace ermoe {
namespace {

constexpr double beat_s = 0.25;
constexpr double connect_s = 2;  // for one address
constexpr double proof_s = 5;    // for the first record over a new connection

using Kind = RankRecord::Kind;

double seconds_now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

std::string random_token() {
  std::random_device random;
  return fmt::format("{:08x}{:08x}{:08x}{:08x}", random(), random(), random(), random());
}

RankRecord with_token(Kind kind, int rank, const std::string& token) {
  RankRecord record;
  record.kind = kind;
  record.rank = rank;
  put_text(record.text, token);
  return record;
}

/// A channel to rank 0, where it is rank 0 who answers at that address.
RecordChannel try_address(const std::string& address, int port, int rank, const std::string& token) {
  RecordChannel channel(connect_to(address, port, connect_s));
  channel.send(with_token(Kind::hello, rank, token));
  for (const double deadline = seconds_now() + proof_s; channel.open() && seconds_now() < deadline;) {
    wait_readable(channel.socket(), deadline - seconds_now());
    const std::optional<RankRecord> answer = channel.receive();
    if (!answer) continue;
    if (answer->kind == Kind::welcome && answer->text.data() == token) return channel;
    break;
  }
  return {};
}

}  // namespace

RankDoor::RankDoor() : listener_(listen_on_any_port()), token_(random_token()) {}

std::string RankDoor::invitation() const {
  std::string text = fmt::format("{} {}", listener_.port, token_);
  for (const std::string& address : own_addresses()) text += " " + address;
  return text;
}

std::vector<RecordChannel> RankDoor::admit(std::span<const RankName> names, double seconds, const std::function<RankRecord()>& beat) {
  std::vector<RecordChannel> ranks(names.size());
  std::vector<Guest> guests;
  const auto absent = [&] { return std::ranges::find_if(ranks.begin() + 1, ranks.end(), [](const auto& c) { return !c.open(); }); };
  const double deadline = seconds_now() + seconds;
  for (double next = 0; absent() != ranks.end();) {
    check_input(
        seconds_now() < deadline,
        "{} did not reach rank 0 on {}, port {}, over TCP within {:.0f} s; ranks watch each other that way, so it must be let through",
        who(names, static_cast<int>(absent() - ranks.begin())), names[0].host, listener_.port, seconds);
    wait_readable(listener_.socket, 0.02);
    look_after(guests, ranks);
    if (seconds_now() < next) continue;
    next = seconds_now() + beat_s;
    for (RecordChannel& channel : ranks) channel.send(beat());  // those who came early must not think that rank 0 is gone
  }
  return ranks;
}

void RankDoor::look_after(std::vector<Guest>& guests, std::vector<RecordChannel>& ranks) {
  const size_t room = 64 + 2 * ranks.size();
  for (Socket socket = listener_.socket.accept(); socket.open(); socket = listener_.socket.accept()) {
    if (guests.size() < room) guests.push_back({RecordChannel(std::move(socket)), seconds_now()});
  }
  for (Guest& guest : guests) {
    const std::optional<RankRecord> hello = guest.channel.receive();
    if (!hello && seconds_now() - guest.since < proof_s) continue;
    const bool known = hello && hello->kind == Kind::hello && hello->text.data() == token_ && hello->rank > 0 &&
                       static_cast<size_t>(hello->rank) < ranks.size() && !ranks[static_cast<size_t>(hello->rank)].open();
    if (!known) {
      guest.channel.close();
      continue;
    }
    guest.channel.send(with_token(Kind::welcome, 0, token_));
    ranks[static_cast<size_t>(hello->rank)] = std::move(guest.channel);
  }
  std::erase_if(guests, [](const Guest& guest) { return !guest.channel.open(); });
}

RecordChannel reach_rank_0(std::span<const RankName> names, int rank, const std::string& invitation) {
  std::istringstream words(invitation);
  int port = 0;
  std::string token;
  words >> port >> token;
  std::vector<std::string> addresses;
  if (names[static_cast<size_t>(rank)].host == names[0].host) addresses = {"127.0.0.1", "::1"};
  for (std::string address; words >> address;) addresses.push_back(address);
  for (const std::string& address : addresses) {
    if (RecordChannel channel = try_address(address, port, rank, token); channel.open()) return channel;
  }
  fail_input("{} cannot reach rank 0 on {} over TCP (tried {}, port {}); ranks watch each other that way, so it must be let through",
             who(names, rank), names[0].host, fmt::join(addresses, ", "), port);
}

}  // namespace ermoe
