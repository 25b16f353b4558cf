// What is printed about predicted ages, and the table of them.
#include "tools/regression_report.h"

#include "core/error.h"
#include "data/csv.h"
#include "tools/evaluation_report.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <limits>

namespace ermoe {
namespace {

std::vector<AgePrediction> three() {
  return {{.subject = "a", .age = 20, .predicted = 22, .corrected = 21, .training_mean = 35, .fold = 0, .split = "train"},
          {.subject = "b", .age = 30, .predicted = 27, .corrected = 28, .training_mean = 35, .fold = 1, .split = "train"},
          {.subject = "c", .age = 40, .predicted = 41, .corrected = 43, .training_mean = 36, .fold = 2, .split = "val"}};
}

bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST(RegressionReport, TextHasBothSideBySide) {
  const std::string text = regression_text(regression_report(three()));
  for (const char* part :
       {"3 volumes", "MAE                       2.00 ± 0.58", "2.00 ± 0.58\n", "RMSE                             2.16              2.16\n",
        "Pearson r                       0.965", "mean gap                        +0.00             +0.67\n",
        "mean predictor's MAE             8.00", "20 to 29         1     2.00    +2.00            1.00          +1.00\n"})
    EXPECT_TRUE(holds(text, part)) << part << " is not in\n" << text;
  EXPECT_FALSE(holds(text, "undefined") || holds(text, "none") || holds(text, "nan")) << text;
}

TEST(RegressionReport, WhatIsNotThereIsSaid) {
  std::vector<AgePrediction> flat = three();
  for (AgePrediction& p : flat) p.predicted = 33;
  flat[1].corrected = {};
  flat[2].training_mean = {};
  const RegressionReport report = regression_report(flat);
  EXPECT_FALSE(report.corrected || report.mean_predictor_mae);
  const std::string text = regression_text(report);
  for (const char* part : {"undefined", "none", "no bias correction", "correlations are undefined"})
    EXPECT_TRUE(holds(text, part)) << part << " is not in\n" << text;
  EXPECT_FALSE(holds(text, "nan") || holds(text, "mean predictor")) << text;
  const auto json = regression_json(report);
  EXPECT_TRUE(json["corrected"].is_null() && json["mean_predictor_mae"].is_null() && json["as_predicted"]["r"].is_null());
}

TEST(RegressionReport, OneVolume) {
  const std::vector<AgePrediction> one{{.subject = "a", .age = 61, .predicted = 65}};
  const std::string text = regression_text(regression_report(one));
  EXPECT_TRUE(holds(text, "4.00") && holds(text, "undefined") && !holds(text, "±")) << text;
  EXPECT_TRUE(regression_json(regression_report(one))["as_predicted"]["mae_error"].is_null());
}

TEST(RegressionReport, RefusesWhatIsNoNumber) {
  EXPECT_THROW(regression_report(std::span<const AgePrediction>()), Error);
  std::vector<AgePrediction> bad = three();
  bad[1].predicted = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THROW(regression_report(bad), Error);
}

TEST(RegressionReport, Json) {
  const auto json = regression_json(regression_report(three()));
  EXPECT_EQ(json["volumes"], 3);
  EXPECT_EQ(json["as_predicted"]["mae"], 2.0);
  EXPECT_EQ(json["as_predicted"]["mae_interval"].size(), 2u);
  EXPECT_EQ(json["corrected"]["decades"][2]["from"], 40);
  EXPECT_EQ(json["corrected"]["decades"][2]["mean_gap"], 3.0);
  EXPECT_EQ(json["mean_predictor_mae"], (15 + 5 + 4) / 3.0);
}

TEST(RegressionReport, PairedLine) {
  const PairedDifference d{.count = 151, .mean = -0.406, .error = 0.15, .interval = {-0.7, -0.12}, .better_share = 0.61};
  EXPECT_EQ(paired_text("ermoe", "dense", d),
            "ermoe - dense: MAE -0.41 ± 0.15 years (95 % interval -0.70 to -0.12), better for 61.0 % of 151\n");
}

TEST(RegressionReport, CorrectionIsAppliedOrTakenAway) {
  std::vector<AgePrediction> predictions = three();
  apply_correction({.intercept = 10, .slope = 0.5}, predictions);
  EXPECT_EQ(predictions[0].corrected, 24);
  apply_correction({.intercept = 10, .slope = 0.05}, predictions);
  EXPECT_FALSE(predictions[0].corrected);
}

TEST(PredictionTable, IsReadBackAsItWas) {
  std::vector<AgePrediction> predictions = three();
  predictions[0].subject = "Doe, \"J\"\n";
  predictions[1].corrected = {};
  predictions[2].fold = {};
  const std::string text = predictions_csv(predictions);
  CsvReader reader(text, ',', "table");
  std::vector<std::string> row;
  std::vector<std::vector<std::string>> rows;
  while (reader.next(row)) rows.push_back(row);
  const std::vector<std::vector<std::string>> wanted = {
      {"participant_id", "age", "predicted", "corrected", "training_mean", "fold", "split"},
      {"Doe, \"J\"\n", "20", "22.0000", "21.0000", "35.0000", "0", "train"},
      {"b", "30", "27.0000", "", "35.0000", "1", "train"},
      {"c", "40", "41.0000", "43.0000", "36.0000", "", "val"}};
  EXPECT_EQ(rows, wanted);
}

TEST(EvaluationReport, OfARegressionSpeaksOfYears) {
  EvaluationReport report;
  report.checkpoint = "runs/x";
  report.data = "study";
  report.class_names = {"age"};
  report.result.loss = 3.5;
  report.regression = regression_report(three());
  const std::string text = evaluation_text(report);
  EXPECT_TRUE(holds(text, "study: 3 volumes") && holds(text, "loss       3.5000") && holds(text, "MAE")) << text;
  EXPECT_FALSE(holds(text, "top-1") || holds(text, "class")) << text;
  const auto json = nlohmann::json::parse(evaluation_json(report));
  EXPECT_EQ(json["regression"]["as_predicted"]["mae"], 2.0);
  EXPECT_FALSE(json.contains("accuracy") || json.contains("confusion"));
}

TEST(EvaluationReport, OfClassesIsAsItWas) {
  EvaluationReport report;
  report.class_names = {"cat", "dog"};
  report.result.images = 3;
  report.result.accuracy = report.result.top5 = 1;
  report.result.class_accuracy = {1, -1};
  report.result.confusion = {3, 0, 0, 0};
  report.shuffled_accuracy = 0.5;
  EXPECT_TRUE(holds(evaluation_text(report), "top-1      100.00 %"));
  const auto json = nlohmann::json::parse(evaluation_json(report));
  EXPECT_EQ(json["points_lost_shuffled"], 50);
  EXPECT_EQ(json["confusion"], (nlohmann::json{{3, 0}, {0, 0}}));
  EXPECT_TRUE(json["classes"][1]["accuracy"].is_null());
  EXPECT_FALSE(json.contains("regression"));
}

TEST(EvaluationReport, RoutersWithoutBasesHaveNoOverlap) {
  EvaluationReport report;
  report.result.routing.resize(2);
  report.result.routing[1].overlap = 0.25;
  for (RoutingMetrics& m : report.result.routing) m.churn = 0.125;  // so that nothing else is n/a
  const std::string text = evaluation_text(report);
  EXPECT_TRUE(holds(text, "     n/a  0.125\n") && holds(text, "   0.250  0.125\n")) << text;
  const auto json = nlohmann::json::parse(evaluation_json(report));
  EXPECT_TRUE(json["routing"][0].contains("overlap") && json["routing"][0]["overlap"].is_null());
  EXPECT_EQ(json["routing"][1]["overlap"], 0.25);
}

}  // namespace
}  // namespace ermoe
