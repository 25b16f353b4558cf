// Who is accused of what, from what ranks said: one table of situations, without processes or clocks.
#include "core/rank_judge.h"

#include <gtest/gtest.h>

namespace ermoe::testing {
namespace {

constexpr uint64_t world = RankRecord::world_group, steps = RankRecord::steps_group, half = 77;
constexpr WatchLimits limits{.patience_s = 10, .silence_s = 5};

/// Ranks of a run, each at work in "forward" of step 7 for a minute and in no collective, until a test says otherwise.
class Situation {
 public:
  explicit Situation(int size) {
    for (int r = 0; r < size; ++r) {
      names_.push_back({.host = "host" + std::to_string(r), .process = 100 + r});
      RankRecord& said = ranks_.emplace_back().last;
      said.rank = r;
      said.step = 7;
      said.phase_s = said.ordinary_s = 60;
      put_text(said.phase, "forward");
      said.groups[0] = {.id = world, .entered = 0};
    }
  }

  RankView& operator[](int rank) { return ranks_[static_cast<size_t>(rank)]; }
  RankRecord& said(int rank) { return ranks_[static_cast<size_t>(rank)].last; }
  void passed(int rank, uint64_t number, uint64_t group = world) { slot(rank, group).entered = number; }
  void inside(int rank, uint64_t number, double came_s, const char* collective = "all_reduce", uint64_t group = world) {
    passed(rank, number, group);
    said(rank).group = group;
    said(rank).number = number;
    said(rank).came_s = came_s;
    put_text(said(rank).collective, collective);
  }
  std::string verdict() const { return judge(ranks_, names_, limits).value_or(""); }

 private:
  RankRecord::Group& slot(int rank, uint64_t group) {
    for (RankRecord::Group& one : said(rank).groups) {
      if (one.id == group || one.id == 0) {
        one.id = group;
        return one;
      }
    }
    throw std::logic_error("a rank of too many groups");
  }

  std::vector<RankView> ranks_;
  std::vector<RankName> names_;
};

TEST(RankJudge, AtWorkNobodyIsAccused) {
  Situation now(4);
  EXPECT_EQ(now.verdict(), "");
  for (int r = 0; r < 3; ++r) now.inside(r, 5, 9);  // rank 3 has a second left
  EXPECT_EQ(now.verdict(), "");
}

TEST(RankJudge, SilenceIsNamed) {
  Situation now(3);
  now.inside(2, 212, 1);
  now[2].silent_s = 6;
  EXPECT_EQ(
      now.verdict(),
      "rank 2 (host2, process 102) was last heard of 6 s ago, in step 7, forward, in all_reduce number 212: it is stopped, or its host "
      "or the network to it is gone");
  now[2].left = true;
  EXPECT_EQ(now.verdict(), "");
}

TEST(RankJudge, TheRankThatDoesNotComeIsNamed) {
  Situation now(4);
  for (const int r : {0, 1, 3}) now.inside(r, 5, 11);
  now.passed(2, 4);
  EXPECT_EQ(
      now.verdict(),
      "rank 2 (host2, process 102) hangs: it has been in step 7, forward, for 60 s, and rank 0 has waited 11 s in all_reduce number 5");
}

TEST(RankJudge, AnEndlessPhaseMayTakeAnyTime) {
  Situation now(2);
  now.inside(0, 5, 1000);
  now.said(1).endless = 1;
  EXPECT_EQ(now.verdict(), "");
  now.said(1).endless = 0;
  now.said(1).ordinary_s = 3;  // it has just ended
  EXPECT_EQ(now.verdict(), "");
  now.said(1).ordinary_s = 11;
  EXPECT_NE(now.verdict(), "");
}

TEST(RankJudge, OnlyMembersAreMissed) {
  Situation now(3);
  now.inside(0, 3, 11, "all_to_all", half);
  now.inside(1, 3, 11, "all_to_all", half);
  EXPECT_EQ(now.verdict().find("rank 2"), std::string::npos) << "rank 2 is no member";
  EXPECT_NE(now.verdict().find("every rank has come"), std::string::npos);
}

TEST(RankJudge, TheEndOfAChainIsNamed) {
  Situation now(3);
  now.inside(0, 5, 20);  // waits for ranks 1 and 2
  now.passed(1, 4);
  now.inside(1, 3, 15, "all_to_all", half);  // waits for rank 2
  now.passed(2, 4);
  now.passed(2, 2, half);
  EXPECT_EQ(now.verdict().find("rank 2 (host2, process 102) hangs"), 0u) << now.verdict();
}

TEST(RankJudge, RanksThatWaitForEachOther) {
  Situation now(2);
  now.inside(0, 5, 20);
  now.passed(0, 2, half);
  now.passed(1, 4);
  now.inside(1, 3, 20, "barrier", half);
  EXPECT_EQ(
      now.verdict(),
      "rank 0 (host0, process 100) waits in all_reduce number 5 and rank 1 (host1, process 101) in barrier number 3: they wait for each "
      "other");
}

TEST(RankJudge, DifferentCollectivesAtOnePlace) {
  Situation now(2);
  now.inside(0, 5, 0);
  now.inside(1, 5, 0, "barrier");
  EXPECT_EQ(
      now.verdict(),
      "rank 0 came to all_reduce number 5 while rank 1 (host1, process 101) came to barrier number 5: they no longer run the same program");
  now.inside(1, 6, 0, "barrier");  // it has left number 5, which rank 0 is about to do
  EXPECT_EQ(now.verdict(), "");
}

TEST(RankJudge, ACollectiveThatDoesNotEnd) {
  Situation now(2);
  now.said(0).bytes = 4096;
  now.inside(0, 5, 11);
  now.inside(1, 5, 10.5);
  EXPECT_EQ(now.verdict().find("rank 0 (host0, process 100) has been in step 7, forward, in all_reduce number 5, for 11 s (4096 bytes)"),
            0u)
      << now.verdict();
  now.said(0).endless = now.said(1).endless = 1;
  EXPECT_NE(now.verdict(), "") << "a phase may take any time, a collective that all have come to may not";
}

TEST(RankJudge, TheNetworkHasTimeFromTheLastToCome) {
  Situation now(3);
  now.inside(0, 5, 100);  // it has waited for a checkpoint, say
  now.inside(1, 5, 100);
  now.inside(2, 5, 0.1);
  EXPECT_EQ(now.verdict(), "");
  now.inside(2, 6, 0.1);  // number 5 is over, which the others did not say yet
  EXPECT_EQ(now.verdict(), "");
  now.said(2).group = 0;  // number 6 too, as a broadcast may be for its root
  EXPECT_EQ(now.verdict(), "");
  now[2].left = true;
  now[2].silent_s = 9;
  EXPECT_EQ(now.verdict(), "");
  now[2].silent_s = 10;
  EXPECT_NE(now.verdict().find("every rank has come"), std::string::npos) << now.verdict();
}

/// Ranks 0 to 2 wait for their GPUs in step 17.
Situation three_of_four_wait_for_gpus() {
  Situation now(4);
  for (int r = 0; r < 4; ++r) {
    now.said(r).step = 17;
    now.passed(r, 200 + (r == 3));  // the communicator's numbers are others
    now.passed(r, 16, steps);
  }
  for (int r = 0; r < 3; ++r) {
    put_text(now.said(r).phase, "a step on the GPU");
    now.inside(r, 17, 11, "a step on the GPU", steps);
  }
  return now;
}

TEST(RankJudge, WhoDoesNotComeToAStepOnTheGpuIsNamed) {
  Situation now = three_of_four_wait_for_gpus();
  EXPECT_EQ(
      now.verdict(),
      "rank 3 (host3, process 103) hangs: it has been in step 17, forward, for 60 s, and rank 0 has waited 11 s in a step on the GPU");
  now.said(3).endless = 1;
  EXPECT_EQ(now.verdict(), "");
  now[3].silent_s = 6;
  EXPECT_EQ(now.verdict().find("rank 3 (host3, process 103) was last heard of 6 s ago, in step 17, forward: "), 0u) << now.verdict();
}

TEST(RankJudge, AStepOnTheGpuAndACollectiveThatWaitForEachOther) {
  Situation now = three_of_four_wait_for_gpus();
  now.inside(3, 202, 11);
  EXPECT_EQ(
      now.verdict(),
      "rank 0 (host0, process 100) waits in a step on the GPU and rank 3 (host3, process 103) in all_reduce number 202: they wait for each "
      "other");
}

TEST(RankJudge, AStepOnTheGpuThatDoesNotEnd) {
  Situation now = three_of_four_wait_for_gpus();
  put_text(now.said(3).phase, "a step on the GPU");
  now.inside(3, 17, 9, "a step on the GPU", steps);
  EXPECT_EQ(now.verdict(), "");
  now.inside(3, 17, 10.5, "a step on the GPU", steps);
  EXPECT_EQ(now.verdict(),
            "rank 0 (host0, process 100) has been in step 17, a step on the GPU, for 11 s, where every rank has come: a GPU or what "
            "connects them "
            "hangs, or the step takes longer than the time-out allows for");
}

TEST(RankJudge, ARankThatEndedIsMissed) {
  Situation now(2);
  now.inside(0, 5, 11);
  now.passed(1, 4);
  now[1].left = true;
  EXPECT_EQ(now.verdict(), "rank 1 (host1, process 101) has ended, and rank 0 has waited 11 s in all_reduce number 5");
}

}  // namespace
}  // namespace ermoe::testing
