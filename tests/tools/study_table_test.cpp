// From run folders to the table: every figure comes from where docs/studies.md says, differences are paired by seed, or by sample where
// there is one seed, and the three files say the same.
#include "tools/study_table.h"

#include "core/error.h"
#include "tests/tools/made_runs.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace ermoe::testing {
namespace {

const std::string text = R"({"name": "s", "about": "What this is.", "baseline": "b", "seeds": [0, 1],
  "base": {"train.epochs": 1, "data.path": "synthetic", "model.image_size": 16, "model.channels": 3, "model.classes": 4, "model.width": 32, "model.heads": 2},
  "rows": [{"name": "a"}, {"name": "b", "set": {"moe.router": "vmoe", "moe.expert": "plain"}}, {"name": "c", "set": {"moe.top_k": 1}}],
  "families": {"rank": {"moe.basis_rank": [2]}}})";

class StudyTableTest : public ::testing::Test {
 protected:
  StudyTableTest() : study(made_study(text)), runs(runs_of(study, folder.path().string(), rows_named(study, {}))) {}

  const StudyRun& run(const std::string& name) const { return *std::ranges::find(runs, name, &StudyRun::name); }
  StudyTable table() const { return make_table(study, runs); }
  static bool holds(const std::string& whole, const std::string& part) { return whole.find(part) != std::string::npos; }

  TempFolder folder;
  Study study;
  std::vector<StudyRun> runs;
};

TEST_F(StudyTableTest, FiguresComeFromTheRunsFolder) {
  make_done(folder, run("a, seed 1"), 0.75, "image,class,predicted\n7,1,1\n9,2,0\n");
  const RunFigures f = figures_of(run("a, seed 1"));
  EXPECT_EQ(f.seed, 1u);
  EXPECT_EQ(f.values.at("accuracy"), 0.75);
  EXPECT_NEAR(f.values.at("gini"), 0.2, 1e-12) << "the mean over layers";
  EXPECT_EQ(f.values.at("dead_experts"), 2) << "those of all layers";
  EXPECT_NEAR(f.values.at("churn"), 0.3, 1e-12) << "a first evaluation has none";
  EXPECT_NEAR(f.values.at("purity_router"), 0.125, 1e-12);
  EXPECT_FALSE(f.values.contains("purity_experts"));
  EXPECT_EQ(f.values.at("images_per_s"), 250) << "the first steps are left out";
  EXPECT_EQ(f.values.at("memory_mib"), 60);
  EXPECT_GT(f.values.at("parameters"), f.values.at("active_parameters"));
  EXPECT_GT(f.values.at("forward_flops"), 0);
  ASSERT_EQ(f.layers.size(), 2u);
  EXPECT_EQ(f.layers[1].block, 3);
  EXPECT_EQ(f.layers[1].values.at("gini"), 0.3);
  EXPECT_EQ(f.by_sample, (std::map<std::string, double>{{"7", 1}, {"9", 0}}));
  EXPECT_EQ(figure_text(f), "accuracy 75.00 %");
}

TEST_F(StudyTableTest, DifferencesArePairedBySeed) {
  make_done(folder, run("a, seed 0"), 0.80);
  make_done(folder, run("a, seed 1"), 0.84);
  make_done(folder, run("b, seed 0"), 0.79);
  make_done(folder, run("b, seed 1"), 0.81);
  const StudyTable made = table();
  const TableRow& a = made.rows[0];
  EXPECT_NEAR(a.values.at("accuracy").mean, 0.82, 1e-12);
  EXPECT_NEAR(*a.values.at("accuracy").deviation, std::sqrt(0.0008), 1e-12);
  ASSERT_TRUE(a.difference.has_value());
  EXPECT_NEAR(a.difference->mean, 0.02, 1e-12);
  const double half = 12.706204736432095 * std::sqrt(0.0002) / std::sqrt(2);
  EXPECT_NEAR(a.difference->interval->high, 0.02 + half, 1e-9);
  EXPECT_FALSE(made.rows[1].difference.has_value()) << "the baseline's own";
  const std::string markdown = table_markdown(made);
  EXPECT_TRUE(holds(markdown, "| a | 2 | 82.00 ± 2.83 | +2.00 (-10.71 to +14.71) | 0.200 | 1.50 | 2.0 |")) << markdown;
  EXPECT_TRUE(holds(markdown, "| b | 2 | 80.00 ± 1.41 |  |")) << markdown;
  EXPECT_TRUE(holds(markdown, "| a | 1: 0.100, 3: 0.300 | 1: 1.50, 3: 1.50 |"));
  EXPECT_TRUE(holds(markdown, "Not done yet: c, basis_rank=2."));
  EXPECT_TRUE(holds(markdown, "| b | moe.router vmoe, moe.expert plain | `b/seed-0` 79.00, `b/seed-1` 81.00 |")) << markdown;
}

TEST_F(StudyTableTest, WithOneSeedTheIntervalIsOverSamplesAndSaysSo) {
  make_done(folder, run("a, seed 0"), 0.75, "image,class,predicted\n1,0,0\n2,0,0\n3,0,0\n4,0,1\n");
  make_done(folder, run("b, seed 0"), 0.5, "image,class,predicted\n1,0,0\n2,0,0\n3,0,1\n4,0,1\n");
  make_done(folder, run("c, seed 0"), 0.5);
  make_done(folder, run("basis_rank=2, seed 1"), 0.5);
  const StudyTable made = table();
  ASSERT_TRUE(made.rows[0].difference.has_value());
  EXPECT_EQ(made.rows[0].difference->over, Over::samples);
  EXPECT_EQ(made.rows[0].difference->pairs, 4);
  EXPECT_NEAR(made.rows[0].difference->mean, 0.25, 1e-12);
  EXPECT_EQ(made.rows[2].difference->over, Over::nothing) << "it has no predictions";
  EXPECT_FALSE(made.rows[3].difference.has_value()) << "no seed is common to both";
  const std::string markdown = table_markdown(made);
  EXPECT_TRUE(holds(markdown, "+25.00 (-24.00 to +74.00)*")) << markdown;
  EXPECT_TRUE(holds(markdown, "+0.00 (one seed: no interval)"));
  EXPECT_TRUE(holds(markdown, "\\* One seed"));
  EXPECT_EQ(made.base_row, "a") << "the row that sets nothing";
  EXPECT_TRUE(holds(markdown, "## rank\n\n| row | sets | accuracy, % | difference to a |")) << "a table for the family";
}

TEST_F(StudyTableTest, CsvAndJsonHoldEverything) {
  make_done(folder, run("a, seed 0"), 0.75);
  make_done(folder, run("b, seed 0"), 0.5);
  const StudyTable made = table();
  const std::string csv = table_csv(made);
  EXPECT_TRUE(csv.starts_with(
      "row,family,sets,seeds,difference_to_baseline,low_to_baseline,high_to_baseline,interval_to_baseline,difference_to_base,"))
      << csv;
  EXPECT_TRUE(holds(csv, "\na,,the base,1,0.25,,,nothing,,,,,0.75,,")) << csv;
  EXPECT_TRUE(holds(csv, "\nb,,\"moe.router vmoe, moe.expert plain\",1,,,,,-0.25,,,nothing,0.5,,")) << csv;
  EXPECT_EQ(std::ranges::count(csv, '\n'), 5);
  const nlohmann::json json = parse_json(table_json(made), "table.json");
  EXPECT_EQ(json["judged_by"], "accuracy");
  EXPECT_EQ(json["base"]["train.epochs"], "1");
  EXPECT_EQ(json["rows"][1]["sets"]["moe.router"], "vmoe");
  EXPECT_EQ(json["rows"][0]["values"]["accuracy"]["mean"], 0.75);
  EXPECT_EQ(json["rows"][0]["runs"][0]["layers"][1]["block"], 3);
  EXPECT_EQ(json["rows"][0]["difference"]["pairs"], 1);
  EXPECT_TRUE(json["rows"][2]["runs"].empty());
}

TEST_F(StudyTableTest, ImagesWithCaptionsAreJudgedByRsum) {
  for (const char* name : {"a, seed 0", "b, seed 0"}) {
    make_done(folder, run(name), 0, "image,caption,rank,top_image\n1.jpg,a dog,3,2.jpg\n");
    folder.file(run(name).folder.substr(folder.path().string().size() + 1) + "/evaluation.json",
                R"({"loss":0.1,"rsum":212.4,"i2t_r10":41,"t2i_r10":38.5,"routing":[]})");
  }
  const StudyTable made = table();
  EXPECT_EQ(made.judged_by, "rsum");
  EXPECT_EQ(made.rows[0].runs[0].values.at("t2i_r10"), 38.5);
  EXPECT_TRUE(made.rows[0].runs[0].by_sample.empty());
  EXPECT_TRUE(holds(table_markdown(made), "| row | seeds | rsum | difference to b |"));
  EXPECT_TRUE(holds(table_markdown(made), "R@10 text to image, %"));
  EXPECT_EQ(figure_text(made.rows[0].runs[0]), "rsum 212.4");
}

TEST_F(StudyTableTest, RegressionsAreJudgedByTheirMeanError) {
  for (const char* name : {"a, seed 0", "b, seed 0"}) {
    make_done(folder, run(name), 0, "participant_id,age,predicted\ns1,40,42\ns2,50,45\n");
    folder.file(run(name).folder.substr(folder.path().string().size() + 1) + "/evaluation.json",
                R"({"loss":0.1,"regression":{"as_predicted":{"mae":3.5}},"routing":[]})");
  }
  const StudyTable made = table();
  EXPECT_EQ(made.judged_by, "mae");
  EXPECT_EQ(made.rows[0].runs[0].by_sample.at("s2"), 5);
  EXPECT_EQ(made.rows[0].difference->over, Over::samples);
  EXPECT_TRUE(holds(table_markdown(made), "| row | seeds | MAE | difference to b |"));
  EXPECT_EQ(figure_text(made.rows[0].runs[0]), "MAE 3.500");
}

TEST_F(StudyTableTest, AnEvaluationThatIsNoneIsRefused) {
  make_done(folder, run("a, seed 0"), 0.5);
  folder.file("a/seed-0/evaluation.json", "[]");
  EXPECT_THROW(figures_of(run("a, seed 0")), InputError);
}

}  // namespace
}  // namespace ermoe::testing
