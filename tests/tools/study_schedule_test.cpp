// How far a study is, what it will take, and the children that do the work. The whole of it is tried from outside by
// tests/programs_study.sh.
#include "tools/study_schedule.h"

#include "core/error.h"
#include "tests/tools/made_runs.h"
#include "tests/tools/made_study.h"
#include "tools/child_process.h"
#include "tools/study_forecast.h"
#include "tools/study_progress.h"

#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <thread>

namespace ermoe::testing {
namespace {

/// Its exit code, once it has one; -1 after ten seconds.
int wait_for(ChildProcess& child) {
  for (int i = 0; i < 1000; ++i) {
    if (const auto code = child.ended()) return *code;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return -1;
}

TEST(ChildProcess, WritesWhereItIsToldAndEndsWithItsCode) {
  const TempFolder folder;
  const std::string out = folder.file("out", "before"), err = folder.file("err", "before\n");
  ChildProcess child({"/bin/sh", "-c", "echo said; echo complained >&2; exit 3"}, out, err);
  EXPECT_EQ(wait_for(child), 3);
  EXPECT_EQ(TempFolder::read(out), "said\n");
  EXPECT_EQ(TempFolder::read(err), "before\ncomplained\n");
  ChildProcess both({"/bin/sh", "-c", "echo said; echo complained >&2"}, err, err);
  EXPECT_EQ(wait_for(both), 0);
  EXPECT_EQ(TempFolder::read(err), "before\ncomplained\nsaid\ncomplained\n");
}

TEST(ChildProcess, HearsSignals) {
  const TempFolder folder;
  ChildProcess child({"/bin/sh", "-c", "exec sleep 60"}, folder / "out", folder / "out");
  EXPECT_FALSE(child.ended().has_value());
  child.signal(SIGTERM);
  EXPECT_EQ(wait_for(child), 128 + SIGTERM);
  child.signal(SIGTERM);  // nothing happens
  ChildProcess missing({folder / "no such program"}, folder / "out", folder / "out");
  EXPECT_EQ(wait_for(missing), 127);
  EXPECT_THROW(ChildProcess({"/bin/true"}, folder / "no/such/folder", folder / "out"), Error);
  EXPECT_THROW(sibling_program("ermoe-nothing"), InputError);
}

TEST(StudyProgress, TheTimeLeftIsThatOfTheWorkLeft) {
  EXPECT_FALSE(seconds_left(100, 0.001, 4).has_value()) << "too early to tell";
  EXPECT_NEAR(*seconds_left(100, 1, 4), 300, 1e-9);
  EXPECT_EQ(*seconds_left(100, 5, 4), 0);
  EXPECT_EQ(study_line(2, 9, {{.name = "vmoe, seed 0", .share = 0.37}}, 725), "2 of 9 runs done; vmoe, seed 0 37 %; about 12:05 left");
}

TEST(StudyForecast, StepsAreThoseThatASessionTakes) {
  RunConfig config;
  config.train.epochs = 3;
  config.train.batch = 32;
  EXPECT_EQ(steps_of(config, 100), 9);
  config.train.accumulate = 4;  // 12 micro-batches of 8: 3 steps an epoch
  EXPECT_EQ(steps_of(config, 100), 9);
  config.train.steps = 5;
  EXPECT_EQ(steps_of(config, 100), 5);
}

TEST(StudyForecast, CountsWhatIsMissing) {
  const TempFolder folder;
  const Study study = made_study(R"({"name": "s", "seeds": [0, 1], "base": {"train.epochs": 1, "train.batch": 8, "model.image_size": 16,
    "model.channels": 3, "data.path": "synthetic:size=16,count=100,classes=4"}, "rows": [{"name": "a"}]})");
  const auto runs = runs_of(study, folder.path().string(), {0});
  const std::string before = forecast(runs, 1);
  EXPECT_NE(before.find("to run       a, seed 0                                12 steps"), std::string::npos) << before;
  EXPECT_NE(before.find("2 of 2 runs are missing: 24 steps, 1 at once"), std::string::npos) << before;
  EXPECT_NE(before.find("is known once a run is done"), std::string::npos);
  make_done(folder, runs[0], 0.5);
  write_record(runs[0], {.at_once = 1, .seconds = 30});
  const std::string after = forecast(runs, 1);
  EXPECT_NE(after.find("1 of 2 runs are missing: 12 steps"), std::string::npos) << after;
  EXPECT_NE(after.find("about 0:30"), std::string::npos) << after;
}

TEST(StudyForecast, DataThatAreNotThereAreToldWithTheRow) {
  const TempFolder folder;
  const Study study = made_study(R"({"name": "s", "rows": [{"name": "a", "set": {"data.path": "synthetic"}}, {"name": "b"}]})");
  const auto runs = runs_of(study, folder.path().string(), {0, 1});
  try {
    require_data_sets(study, runs);
    ADD_FAILURE() << "accepted";
  } catch (const InputError& fault) {
    EXPECT_EQ(std::string(fault.what()), "row b: data.path is not set: give --data PATH");
  }
}

TEST(StudySchedule, ARunThatFailsIsToldWithItsLastLinesAndTheOthersGoOn) {
  const TempFolder folder;
  const Study study = made_study(R"({"name": "s", "seeds": [0, 1], "base": {"data.path": "synthetic"}, "rows": [{"name": "a"}]})");
  const auto runs = runs_of(study, folder.path().string(), {0});
  make_done(folder, runs[1], 0.5);
  Quiet quiet;
  const ScheduleResult result = run_missing(runs, {.jobs = 2, .threads = 1, .train = "/bin/false", .evaluate = "/bin/false"});
  const std::string said = quiet.text();
  EXPECT_EQ(result.failed, 1);
  EXPECT_EQ(result.done, 0);
  EXPECT_EQ(result.signal, 0);
  EXPECT_NE(said.find("a, seed 0: FAILED, its training ended with code 1; the last lines of " + runs[0].file(log_file)), std::string::npos)
      << said;
  EXPECT_EQ(said.find("seed 1"), std::string::npos);
}

}  // namespace
}  // namespace ermoe::testing
