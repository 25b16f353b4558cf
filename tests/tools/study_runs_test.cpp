// The runs of a study on disk: what is there, how far it is, and whether it is what the study asks for.
#include "tools/study_runs.h"

#include "core/error.h"
#include "tests/tools/made_runs.h"

#include <gtest/gtest.h>

#include <filesystem>

namespace ermoe::testing {
namespace {

const std::string text = R"({"name": "s", "seeds": [0, 1], "base": {"train.epochs": 1, "data.path": "synthetic", "model.image_size": 16,
  "model.channels": 3}, "rows": [{"name": "a"}, {"name": "b", "set": {"moe.router": "vmoe", "moe.expert": "plain"}, "seeds": [5]}]})";

class StudyRuns : public ::testing::Test {
 protected:
  std::vector<StudyRun> runs(const std::string& study) const {
    const Study parsed = made_study(study);
    return runs_of(parsed, folder.path().string(), rows_named(parsed, {}));
  }
  std::string refusal(const std::vector<StudyRun>& all) const {
    try {
      require_agreement(all);
    } catch (const InputError& fault) {
      return fault.what();
    }
    return "accepted";
  }

  TempFolder folder;
};

TEST_F(StudyRuns, EachRowAndSeedHasAFolderFirstSeedsFirst) {
  const auto all = runs(text);
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[0].name, "a, seed 0");
  EXPECT_EQ(all[1].name, "b, seed 5");
  EXPECT_EQ(all[2].name, "a, seed 1");
  EXPECT_EQ(all[1].folder, folder / "b/seed-5");
  EXPECT_EQ(all[1].asked.train.seed, 5u);
  EXPECT_EQ(all[1].asked.train.out, all[1].folder);
  EXPECT_EQ(all[1].asked.model.moe.router, RouterKind::vmoe);
}

TEST_F(StudyRuns, TheStateIsWhatLiesThere) {
  const StudyRun run = runs(text)[0];
  EXPECT_EQ(state_of(run), RunState::absent);
  prepare(run);
  EXPECT_EQ(state_of(run), RunState::absent) << "nothing to go on from";
  make_begun(folder, run, 7);
  EXPECT_EQ(state_of(run), RunState::begun);
  EXPECT_NEAR(progress_of(run), 0.8, 1e-12) << "steps may be logged past the checkpoint";
  make_begun(folder, run, 10);
  EXPECT_EQ(state_of(run), RunState::trained);
  folder.file("a/seed-0/checkpoints/latest", "step-8");
  EXPECT_EQ(state_of(run), RunState::begun) << "the last step was logged, and not saved";
  make_done(folder, run, 0.5);
  EXPECT_EQ(state_of(run), RunState::done);
  StudyRun longer = run;
  longer.asked.train.steps = 20;
  folder.file("a/seed-0/checkpoints/latest", "step-10");
  std::filesystem::remove(run.file(evaluation_file));
  EXPECT_EQ(state_of(longer), RunState::begun);
}

TEST_F(StudyRuns, SettingsThatChangedAreNamedAndWhereItRanDoesNotCount) {
  auto all = runs(text);
  make_done(folder, all[0], 0.5);
  EXPECT_EQ(refusal(all), "accepted");
  all[0].asked.train.threads = 3;
  all[0].asked.data.path.clear();  // --table-only wants no data
  EXPECT_EQ(refusal(all), "accepted");
  all[0].asked.model.moe.top_k = 1;
  all[0].asked.optim.lr = 0.5;
  EXPECT_EQ(refusal(all),
            "row a: " + all[0].folder +
                " was run with moe.top_k 2, not 1; with optim.lr 0.001, not 0.5; choose another --out, or remove that folder");
  std::filesystem::remove(all[0].file(evaluation_file));
  EXPECT_NE(refusal(all), "accepted") << "nor does half a run go on with other settings";
  std::filesystem::remove_all(all[0].file("checkpoints"));
  EXPECT_EQ(refusal(all), "accepted") << "of this one nothing is kept";
}

TEST_F(StudyRuns, RunsOfOthersAreLeftAlone) {
  const auto all = runs(text);
  folder.file("a/seed-1/config.json", "{}");
  EXPECT_NE(refusal(all).find("seed-1 holds a run that no study began"), std::string::npos);
}

TEST_F(StudyRuns, PreparingAgainKeepsNothing) {
  const StudyRun run = runs(text)[0];
  make_done(folder, run, 0.5);
  write_record(run, {.at_once = 3, .seconds = 12.5});
  EXPECT_EQ(record_of(run).at_once, 3);
  EXPECT_EQ(record_of(run).seconds, 12.5);
  prepare(run);
  size_t left = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(run.folder)) ++left;
  EXPECT_EQ(left, 1u);
  EXPECT_EQ(state_of(run), RunState::absent);
  EXPECT_EQ(record_of(run).at_once, 1);
}

}  // namespace
}  // namespace ermoe::testing
