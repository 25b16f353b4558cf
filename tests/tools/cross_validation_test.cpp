// A cross-validation of made brains: everyone is held out once, what was stopped goes on to the same end, and what folds left behind is
// read with suspicion.
#include "tools/cross_validation.h"

#include "core/error.h"
#include "core/file_io.h"
#include "core/json.h"
#include "tests/tools/made_study.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <set>

namespace ermoe::testing {
namespace {

namespace fs = std::filesystem;

bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// What it printed.
std::string validate_quietly(const RunConfig& config) {
  Quiet quiet;
  EXPECT_EQ(cross_validate(config, nullptr), 0);
  return quiet.text();
}

std::string refusal_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const InputError& fault) {
    return fault.what();
  }
  return "accepted";
}

class CrossValidationTest : public ::testing::Test {
 protected:
  CrossValidationTest() {
    config.data.folds = 3;
    config.train.steps = 3;
    config.train.log_every = 1;
    config.checkpoint.every = 1;
    config.checkpoint.keep = 5;
    config.train.out = study.folder / "cv";
  }
  std::string in_fold(int fold, const std::string& name) const { return fmt::format("{}/fold-{}/{}", config.train.out, fold, name); }

  MadeStudy study{9};
  RunConfig config = study.config();
};

TEST_F(CrossValidationTest, PredictsEveryoneOnceAndWritesTheReport) {
  EXPECT_TRUE(wants_cross_validation(config));
  const std::string said = validate_quietly(config);
  EXPECT_TRUE(holds(said, "9 subjects, each predicted by the model that never saw them")) << said;
  const std::vector<AgePrediction> all = held_out_predictions(config.train.out);
  ASSERT_EQ(all.size(), 9u);
  std::map<int, int> folds;
  for (size_t i = 0; i < 9; ++i) {
    EXPECT_EQ(all[i].subject, MadeStudy::name(static_cast<int64_t>(i)));
    EXPECT_EQ(all[i].age, MadeStudy::age(static_cast<int64_t>(i)));
    EXPECT_TRUE(std::isfinite(all[i].predicted));
    EXPECT_NEAR(*all[i].training_mean, 28, 3);
    ++folds[*all[i].fold];
  }
  EXPECT_EQ(folds, (std::map<int, int>{{1, 3}, {2, 3}, {3, 3}}));
  EXPECT_EQ(read_json(config.train.out + "/report.json")["volumes"], 9);
  EXPECT_TRUE(path_exists(config.train.out + "/scatter.png"));
  EXPECT_TRUE(TempFolder::read(config.train.out + "/predictions.csv").starts_with("participant_id,age,predicted"));
}

TEST_F(CrossValidationTest, TheSameCommandAgainGoesOnToTheSameEnd) {
  validate_quietly(config);
  const std::string whole = TempFolder::read(config.train.out + "/predictions.csv");
  // Fold 1 is done and left alone, fold 2 was stopped after its first step, fold 3 was never begun.
  const auto made = fs::last_write_time(in_fold(1, "predictions.csv"));
  for (const int step : {2, 3}) fs::remove_all(in_fold(2, fmt::format("checkpoints/step-{}", step)));
  write_file(in_fold(2, "checkpoints/latest"), "step-1\n");
  fs::remove(in_fold(2, "predictions.csv"));
  fs::remove_all(in_fold(3, ""));
  fs::remove(config.train.out + "/predictions.csv");
  EXPECT_TRUE(holds(refusal_of([&] { held_out_predictions(config.train.out); }), "fold-2 is not done: start its training again"));
  const std::string said = validate_quietly(config);
  EXPECT_TRUE(holds(said, "continuing after step 1")) << said;
  EXPECT_FALSE(holds(said, "fold 1 of 3"));
  EXPECT_EQ(TempFolder::read(config.train.out + "/predictions.csv"), whole);
  EXPECT_EQ(fs::last_write_time(in_fold(1, "predictions.csv")), made);
}

TEST_F(CrossValidationTest, ResumingIsRefused) {
  config.train.resume = config.train.out;
  EXPECT_TRUE(holds(refusal_of([&] { cross_validate(config, nullptr); }), "train.resume: a cross-validation goes on by the same command"));
}

/// Folders of folds as runs leave them, but written here.
class HeldOutPredictions : public ::testing::Test {
 protected:
  HeldOutPredictions() {
    for (int fold = 1; fold <= 2; ++fold) put("cv", fold, line(fold, 1) + line(fold, 2) + line(fold, 3));
  }
  /// A subject whose age is predicted as 10 + half of it.
  static std::string line(int fold, int i) {
    const int age = 20 * i + fold;
    return fmt::format("f{}s{},{},{},,40,{},val\n", fold, i, age, 10 + 0.5 * age, fold);
  }
  void put(const std::string& run, int fold, const std::string& lines) {
    folder.file(fmt::format("{}/fold-{}/config.json", run, fold), "{}");
    folder.file(fmt::format("{}/fold-{}/checkpoints/latest", run, fold), "step-1\n");
    folder.file(fmt::format("{}/fold-{}/predictions.csv", run, fold),
                "participant_id,age,predicted,corrected,training_mean,fold,split\n" + lines);
  }
  std::string refusal() {
    return refusal_of([&] { held_out_predictions(folder / "cv"); });
  }

  TempFolder folder;
};

TEST_F(HeldOutPredictions, AreCorrectedByTheLineThroughOtherFolds) {
  for (const AgePrediction& p : held_out_predictions(folder / "cv")) EXPECT_NEAR(p.corrected.value_or(0), p.age, 1e-9) << p.subject;
  put("cv", 2, "a,30,31,,40,2,val\nb,50,29,,40,2,val\nc,60,27,,40,2,val\n");  // a line that falls corrects nobody
  for (const AgePrediction& p : held_out_predictions(folder / "cv")) EXPECT_FALSE(p.corrected) << p.subject;
}

TEST_F(HeldOutPredictions, DamageIsNamedWithFileAndLine) {
  for (const auto& [lines, fault] : std::vector<std::pair<std::string, std::string>>{
           {"", "holds no predictions"},
           {line(2, 1) + "x,30,31,,40\n", "line 3 has 5 fields, not 7"},
           {"x,30,young,,40,2,val\n", "'young' is no number"},
           {"x,30,,,40,2,val\n", "'' is no number"},
           {"x,30,31,,40,two,val\n", "'two' is no number"},
           {"x,30,nan,,40,2,val\n", "'nan' is no number"},
           {"x,30,31,,40,7,val\n", "line 2 is of fold 7, not 2"},
           {line(2, 1) + line(1, 1), "line 3 is of fold 1, not 2"},
       }) {
    put("cv", 2, lines);
    EXPECT_TRUE(holds(refusal(), folder / "cv/fold-2/predictions.csv") && holds(refusal(), fault)) << refusal() << " for " << fault;
  }
}

TEST_F(HeldOutPredictions, AFolderWithoutFoldsIsNone) {
  const std::string text = refusal_of([&] { held_out_predictions(folder / "cv/fold-1"); });
  EXPECT_TRUE(holds(text, "is not the folder of a cross-validation: it holds no fold-1 and fold-2")) << text;
}

TEST_F(HeldOutPredictions, AreComparedForTheSameSubjectsAlone) {
  for (int fold = 1; fold <= 2; ++fold)
    put("exact", fold, [&] {
      std::string lines;
      for (int i = 1; i <= 3; ++i) lines += fmt::format("f{}s{},{},{},,40,{},val\n", fold, i, 20 * i + fold, 20 * i + fold, fold);
      return lines;
    }());
  const std::string text = compare_text(folder / "exact", folder / "cv");
  EXPECT_TRUE(holds(text, "better for 100.0 % of 6")) << text;
  put("exact", 2, line(2, 1) + line(2, 2));
  EXPECT_TRUE(holds(refusal_of([&] { compare_text(folder / "exact", folder / "cv"); }), "are not of the same subjects"));
}

}  // namespace
}  // namespace ermoe::testing
