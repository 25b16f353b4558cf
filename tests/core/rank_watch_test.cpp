// The watch over ranks on one machine: several in this process, and children that are killed or stopped. What MPI's calls do meanwhile
// is tests/ranks.sh's matter.
#include "core/rank_watch.h"

#include "core/error.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <mutex>
#include <sstream>
#include <thread>

namespace ermoe::testing {
namespace {

constexpr double timeout_s = 3;  // the shortest whose limits, 2 s, a busy machine keeps

void wait_s(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

std::vector<RankName> names_of(int size) {
  std::vector<RankName> names;
  for (int r = 0; r < size; ++r) names.push_back({.host = host_name(), .process = 1000 + r});
  return names;
}

/// What the watches of this process said, by rank.
class Said {
 public:
  explicit Said(int size) : lines_(static_cast<size_t>(size)), codes_(static_cast<size_t>(size), -1) {}

  WatchOptions options(int rank) {
    const auto leave = [this, rank](const std::string& line, int code) {
      const std::lock_guard lock(mutex_);
      lines_[static_cast<size_t>(rank)] += line;
      codes_[static_cast<size_t>(rank)] = code;
      news_.notify_all();
    };
    return {.program = "test", .rank = rank, .names = names_of(static_cast<int>(lines_.size())), .timeout_s = timeout_s, .leave = leave};
  }
  /// What that rank said at last, waited for.
  std::string line(int rank) {
    std::unique_lock lock(mutex_);
    news_.wait_for(lock, std::chrono::seconds(15), [&] { return !lines_[static_cast<size_t>(rank)].empty(); });
    return lines_[static_cast<size_t>(rank)];
  }
  int code(int rank) {
    const std::lock_guard lock(mutex_);
    return codes_[static_cast<size_t>(rank)];
  }
  bool silent() {
    const std::lock_guard lock(mutex_);
    return std::ranges::all_of(lines_, [](const std::string& line) { return line.empty(); });
  }

 private:
  std::mutex mutex_;
  std::condition_variable news_;
  std::vector<std::string> lines_;
  std::vector<int> codes_;
};

/// Watches that found each other.
std::vector<std::unique_ptr<RankWatch>> team(Said& said, int size) {
  std::vector<std::unique_ptr<RankWatch>> watches;
  for (int r = 0; r < size; ++r) watches.push_back(std::make_unique<RankWatch>());
  const std::string invitation = watches[0]->invite(said.options(0));
  std::vector<std::thread> others;
  for (int r = 1; r < size; ++r) {
    others.emplace_back([&, r] { watches[static_cast<size_t>(r)]->join(said.options(r), invitation); });
  }
  watches[0]->admit(10);
  for (std::thread& one : others) one.join();
  return watches;
}

TEST(RankWatch, IdleDoesNothing) {
  RankWatch watch;
  watch.at(1, "forward");
  watch.enter(RankWatch::world_group, "barrier", 1, 0);
  watch.leave();
  watch.goodbye();
  EXPECT_FALSE(watch.stopped());
}

TEST(RankWatch, SecondsInCollectivesAreCounted) {
  Said said(2);
  const auto watches = team(said, 2);
  RankWatch& watch = *watches[0];
  watch.leave();  // none was entered
  EXPECT_EQ(watch.seconds_in_collectives(), 0);
  for (const uint64_t group : {RankWatch::world_group, uint64_t{4711}}) {  // and one that is not watched
    watch.enter(group, "all_reduce", 1, 8);
    wait_s(0.02);
    watch.leave();
    wait_s(0.005);
  }
  EXPECT_GE(watch.seconds_in_collectives(), 0.04);
  const double counted = watch.seconds_in_collectives();
  watch.leave();
  EXPECT_EQ(watch.seconds_in_collectives(), counted);
  for (const auto& one : watches) one->goodbye();
}

TEST(RankWatch, WhoSaysGoodbyeIsNotAccused) {
  for (const int first : {0, 2}) {
    Said said(3);
    const auto watches = team(said, 3);
    watches[static_cast<size_t>(first)]->goodbye();
    wait_s(0.6);
    for (const auto& watch : watches) watch->goodbye();
    EXPECT_TRUE(said.silent());
  }
}

TEST(RankWatch, AFailureEndsTheOthersWithItsSentenceAndCode) {
  for (const int culprit : {0, 2}) {
    Said said(3);
    const auto watches = team(said, 3);
    watches[1]->advise("the last checkpoint is whole");
    watches[static_cast<size_t>(culprit)]->stop("data.path: nothing lies there", 2);
    EXPECT_EQ(said.line(1), fmt::format("test: rank 1 of 3 ({}): rank {} ({}, process {}) ended: data.path: nothing lies there; the last "
                                        "checkpoint is whole\n",
                                        host_name(), culprit, host_name(), 1000 + culprit));
    EXPECT_EQ(said.code(1), 2);
    EXPECT_NE(said.line(2 - culprit).find("nothing lies there\n"), std::string::npos);
    EXPECT_EQ(said.code(culprit), -1) << "it says so itself";
  }
}

/// As all do where a setting is wrong: whoever is the first to go has said so, and did not die.
TEST(RankWatch, RanksThatFailTogetherAccuseNobody) {
  for (const int first : {0, 2}) {
    Said said(3);
    const auto watches = team(said, 3);
    std::vector<std::thread> ranks;
    for (int r = 0; r < 3; ++r) {
      ranks.emplace_back([&, r] {
        if (r != first) wait_s(0.1);
        watches[static_cast<size_t>(r)]->stop("moe.top_k: more than there are experts", 2);
      });
    }
    for (std::thread& one : ranks) one.join();
    for (int r = 0; r < 3; ++r) EXPECT_EQ(said.code(r), -1) << "each says so itself";
    EXPECT_TRUE(said.silent());
  }
}

TEST(RankWatch, WhoDoesNotComeIsNamedToAllAndItself) {
  Said said(3);
  const auto watches = team(said, 3);
  bool called = false;
  watches[2]->on_fault([&] { called = true; });
  for (const auto& watch : watches) watch->at(17, "backward");
  for (const int r : {0, 2}) watches[static_cast<size_t>(r)]->enter(RankWatch::world_group, "all_reduce", 4, 64);
  for (int r = 0; r < 3; ++r)
    EXPECT_NE(said.line(r).find("rank 1 (" + host_name() + ", process 1001) hangs: it has been in step 17, backward"), std::string::npos)
        << said.line(r);
  EXPECT_TRUE(called);
}

TEST(RankWatch, WhoDoesNotComeToAStepOnTheGpuIsNamed) {
  Said said(2);
  const auto watches = team(said, 2);
  for (const auto& watch : watches) watch->at(17, "loading images");
  watches[0]->at(17, "a step on the GPU");
  watches[0]->enter(RankWatch::steps_group, "a step on the GPU", 17, 0);
  watches[1]->enter(RankWatch::world_group, "all_reduce", 40, 64);  // its number is no step's
  watches[1]->leave();
  EXPECT_NE(said.line(1).find("rank 1 (" + host_name() + ", process 1001) hangs: it has been in step 17, loading images"),
            std::string::npos)
      << said.line(1);
}

/// Nobody is to blame for what has lasted long only because one came late.
TEST(RankWatch, WhoComesLateFromAnEndlessPhaseMeetsPatience) {
  Said said(2);
  const auto watches = team(said, 2);
  for (const auto& watch : watches) watch->at(17, "checkpoint", Patience::endless);
  watches[1]->at(18, "forward");
  watches[1]->enter(RankWatch::world_group, "all_reduce", 1, 64);
  wait_s(1.3 * timeout_s);
  watches[0]->at(18, "forward");
  watches[0]->enter(RankWatch::world_group, "all_reduce", 1, 64);
  wait_s(0.6);  // rank 1 still says that it waits, as it has for long
  for (const auto& watch : watches) watch->leave();
  for (const auto& watch : watches) watch->goodbye();
  EXPECT_TRUE(said.silent()) << said.line(0);
}

TEST(RankWatch, AnEndlessPhaseIsWaitedFor) {
  Said said(2);
  const auto watches = team(said, 2);
  watches[0]->at(17, "backward");
  watches[0]->enter(RankWatch::world_group, "all_reduce", 1, 64);
  watches[1]->at(17, "checkpoint", Patience::endless);
  wait_s(1.3 * timeout_s);
  EXPECT_TRUE(said.silent());
  watches[1]->at(18, "forward");
  EXPECT_NE(said.line(0).find("rank 1"), std::string::npos);
}

TEST(RankWatch, StrangersAtTheDoorAreSentAway) {
  Said said(2);
  RankWatch first, second;
  const std::string invitation = first.invite(said.options(0));
  const int port = std::atoi(invitation.c_str());
  const Socket silent = connect_to("127.0.0.1", port, 1);
  Socket noisy = connect_to("127.0.0.1", port, 1), guessing = connect_to("127.0.0.1", port, 1);
  const std::vector<std::byte> noise(100'000, std::byte{0x5a});
  noisy.send(noise);
  RankRecord hello;
  hello.kind = RankRecord::Kind::hello;
  hello.rank = 1;
  put_text(hello.text, "0123");
  guessing.send(std::as_bytes(std::span(&hello, 1)));
  std::thread other([&] { second.join(said.options(1), invitation); });
  first.admit(10);
  other.join();
  std::byte answer{};
  EXPECT_TRUE(wait_readable(guessing, 5));
  EXPECT_FALSE(guessing.receive(std::span(&answer, 1)).has_value()) << "closed without an answer";
  second.goodbye();
  first.goodbye();
  EXPECT_TRUE(said.silent());
}

TEST(RankWatch, WhoCannotBeReachedIsNamed) {
  Said said(2);
  RankWatch first, second;
  std::istringstream words(first.invite(said.options(0)));
  std::string port;
  words >> port;
  std::string fault;
  std::thread other([&] {
    try {
      second.join(said.options(1), port + " another-token");
    } catch (const InputError& e) {
      fault = e.what();
    }
  });
  EXPECT_THROW(first.admit(1), InputError);
  other.join();
  EXPECT_NE(fault.find("rank 1 (" + host_name() + ", process 1001) cannot reach rank 0 on " + host_name()), std::string::npos) << fault;
}

/// A child process that runs `body`, and what it writes to stderr.
class Child {
 public:
  template <typename Fn>
  explicit Child(Fn body) {
    int ends[2];
    EXPECT_EQ(::pipe(ends), 0);
    process_ = ::fork();
    if (process_ == 0) {
      ::dup2(ends[1], STDERR_FILENO);
      ::close(ends[0]);
      body();
      ::_exit(0);
    }
    ::close(ends[1]);
    errors_ = ends[0];
  }
  ~Child() {
    if (process_ > 0) end();
    ::close(errors_);
  }

  void signal(int number) const { ::kill(process_, number); }
  /// Its exit code, waited for.
  int code() {
    int status = 0;
    ::waitpid(process_, &status, 0);
    process_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  std::string errors() const {
    std::string text;
    char part[512];
    for (ssize_t n = ::read(errors_, part, sizeof part); n > 0; n = ::read(errors_, part, sizeof part))
      text.append(part, static_cast<size_t>(n));
    return text;
  }

 private:
  void end() {
    signal(SIGKILL);
    code();
  }
  pid_t process_ = 0;
  int errors_ = -1;
};

/// Runs as rank `rank` in a child: joins, enters a barrier, and waits.
void be_a_rank(int rank, int size, const std::string& invitation) {
  RankWatch watch;
  watch.join({.program = "test", .rank = rank, .names = names_of(size), .timeout_s = timeout_s, .leave = {}}, invitation);
  watch.at(17, "backward");
  watch.enter(RankWatch::world_group, "barrier", 9, 0);
  wait_s(30);
}

/// What ranks 0 and 2 of three say when rank 1 gets a signal.
void after_signal(int number, const std::string& expected) {
  Said said(3);
  RankWatch watch;
  const std::string invitation = watch.invite(said.options(0));
  Child victim([&] { be_a_rank(1, 3, invitation); }), survivor([&] { be_a_rank(2, 3, invitation); });
  watch.admit(10);
  wait_s(0.6);
  victim.signal(number);
  EXPECT_NE(said.line(0).find("test: rank 0 of 3 (" + host_name() + "): rank 1 (" + host_name() + ", process 1001) " + expected),
            std::string::npos)
      << said.line(0);
  EXPECT_EQ(survivor.code(), 1);
  const std::string line = survivor.errors();
  EXPECT_NE(line.find("test: rank 2 of 3 (" + host_name() + "): rank 1 (" + host_name() + ", process 1001) " + expected), std::string::npos)
      << line;
  EXPECT_EQ(std::ranges::count(line, '\n'), 1);
}

TEST(RankWatch, AKilledRankIsNamedAtOnce) {
  const auto began = std::chrono::steady_clock::now();
  after_signal(SIGKILL, "died in step 17, backward, in barrier number 9\n");
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::duration<double>(timeout_s));
}

TEST(RankWatch, AStoppedRankIsNamed) { after_signal(SIGSTOP, "was last heard of 2 s ago, in step 17, backward, in barrier number 9: "); }

TEST(RankWatch, TheCauseIsToldAndNotWhatCameOfIt) {
  Said said(3);
  RankWatch first, third;
  const std::string invitation = first.invite(said.options(0));
  Child victim([&] { be_a_rank(1, 3, invitation); });
  std::thread other([&] { third.join(said.options(2), invitation); });
  first.admit(10);
  other.join();
  wait_s(0.6);
  victim.signal(SIGKILL);
  third.stop("a call of MPI failed", 1);  // as it may where the other end of a connection is gone
  for (const int r : {0, 2}) EXPECT_NE(said.line(r).find("process 1001) died in step 17"), std::string::npos) << said.line(r);
}

/// Two ranks in one child, which is stopped for longer than silence may last and then goes on: each has its own sleep to thank.
TEST(RankWatch, WhatARankSleptThroughIsNobodysFault) {
  Child pair([] {
    Said said(2);
    const auto watches = team(said, 2);
    wait_s(1.5);
    ::raise(SIGSTOP);
    wait_s(1);
    for (const auto& watch : watches) watch->goodbye();
    ::_exit(said.silent() ? 0 : 3);
  });
  wait_s(1 + timeout_s);
  pair.signal(SIGCONT);
  EXPECT_EQ(pair.code(), 0);
}

TEST(RankWatch, WithoutRankZeroTheOthersKnow) {
  int door[2];
  ASSERT_EQ(::pipe(door), 0);
  Child leader([&] {
    RankWatch watch;
    const std::string invitation = watch.invite({.program = "test", .rank = 0, .names = names_of(2), .timeout_s = timeout_s, .leave = {}});
    if (::write(door[1], invitation.data(), invitation.size()) < 0) ::_exit(4);
    watch.admit(10);
    watch.at(3, "optimizer");
    wait_s(30);
  });
  std::string invitation(4096, '\0');
  const ssize_t length = ::read(door[0], invitation.data(), invitation.size());
  ASSERT_GT(length, 0);
  invitation.resize(static_cast<size_t>(length));
  Said said(2);
  RankWatch watch;
  watch.join(said.options(1), invitation);
  wait_s(0.6);
  leader.signal(SIGKILL);
  EXPECT_NE(said.line(1).find("rank 0 (" + host_name() + ", process 1000) died in step 3, optimizer\n"), std::string::npos) << said.line(1);
  ::close(door[0]);
  ::close(door[1]);
}

}  // namespace
}  // namespace ermoe::testing
