// What may stand in a study's file, what becomes of it, and with which sentence anything else is refused.
#include "tools/study_plan.h"

#include "core/error.h"
#include "core/json.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <algorithm>

namespace ermoe {
namespace {

Study study_of(const std::string& text, const std::vector<Assignment>& flags = {}) {
  return parse_study(parse_json(text, "s.json"), "s.json", flags);
}

std::string refusal(const std::string& text, const std::vector<Assignment>& flags = {}) {
  try {
    study_of(text, flags);
  } catch (const InputError& fault) {
    return fault.what();
  }
  return "accepted";
}

std::string names(const Study& study) {
  std::string all;
  for (const StudyRow& row : study.rows) all += row.name + " ";
  return all;
}

TEST(StudyPlan, RowsSetTheirOwnBesideTheBase) {
  const Study study = study_of(R"({"name": "s", "preset": "cifar10-small", "base": {"train": {"epochs": 3}, "moe.top_k": 1},
    "baseline": "dense", "seeds": [4, 2],
    "rows": [{"name": "ermoe"}, {"name": "dense", "set": {"moe": {"layers": "none"}}, "seeds": [7]}]})");
  EXPECT_EQ(study.name, "s");
  EXPECT_EQ(study.baseline, 1u);
  ASSERT_EQ(study.rows.size(), 2u);
  EXPECT_EQ(study.rows[0].config.train.epochs, 3);
  EXPECT_EQ(study.rows[0].config.model.width, 64) << "the preset's";
  EXPECT_EQ(study.rows[0].config.model.moe.top_k, 1);
  EXPECT_EQ(study.rows[0].seeds, (std::vector<uint64_t>{4, 2}));
  EXPECT_TRUE(study.rows[0].sets.empty());
  EXPECT_EQ(study.rows[1].seeds, std::vector<uint64_t>{7});
  EXPECT_EQ(study.rows[1].sets, (std::vector<SettingText>{{"moe.layers", "none"}}));
}

TEST(StudyPlan, FamiliesAreGridsValueByValue) {
  const Study study = study_of(R"({"name": "s", "base": {"model.width": 64, "model.heads": 2}, "families": {
    "rank": {"moe.basis_rank": [2, 4]},
    "fallback": {"moe.threshold": "quantile:0.1", "moe.free_experts": [1, 2]}}})");
  EXPECT_EQ(names(study), "base free_experts=1,threshold=quantile-0.1 free_experts=2,threshold=quantile-0.1 basis_rank=2 basis_rank=4 ");
  EXPECT_EQ(study.rows[2].family, "fallback");
  EXPECT_EQ(study.rows[2].config.model.moe.free_experts, 2);
  EXPECT_EQ(study.rows[2].config.model.moe.threshold, "quantile:0.1");
  EXPECT_EQ(study.rows[4].config.model.moe.basis_rank, 4);
  EXPECT_EQ(study.rows[4].config.model.moe.free_experts, 0);
}

TEST(StudyPlan, FlagsChangeTheBaseAndRowsStandAbove) {
  const Study study = study_of(R"({"name": "s", "rows": [{"name": "a"}, {"name": "b", "set": {"optim.lr": 0.5}}]})",
                               {{"optim.lr", "0.25"}, {"data.path", "synthetic"}});
  EXPECT_EQ(study.rows[0].config.optim.lr, 0.25);
  EXPECT_EQ(study.rows[1].config.optim.lr, 0.5);
  EXPECT_EQ(study.rows[1].config.data.path, "synthetic");
}

TEST(StudyPlan, WhatIsWrongIsNamedInOneSentence) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"nam": "s"})", R"(s.json: "nam" is not a key; did you mean "name"?)"},
      {R"({"name": "a/b"})", "s.json: the name \"a/b\" must be letters"},
      {R"({"name": ""})", "the name \"\""},
      {R"({"name": "s", "preset": "cifar11"})", "choose one of"},
      {R"({"name": "s", "base": {"moe.top_kk": 1}})", "s.json: base: moe.top_kk is not a setting; did you mean moe.top_k?"},
      {R"({"name": "s", "base": {"train": {"seed": 1}}})", "s.json: base: train.seed is not set here"},
      {R"({"name": "s", "base": {"preset": "cifar10"}})", "preset is not set here: it stands at the top"},
      {R"({"name": "s", "seeds": []})", "seeds must be a list"},
      {R"({"name": "s", "seeds": [-1]})", "seeds: -1 is no whole number"},
      {R"({"name": "s", "seeds": [1, 1]})", "seeds: 1 stands there twice"},
      {R"({"name": "s", "rows": {}})", "rows must be a list"},
      {R"({"name": "s", "rows": [{"name": "a", "sets": {}}]})", R"(row 1: "sets" is not a key; did you mean "set"?)"},
      {R"({"name": "s", "rows": [{"set": {}}]})", "row 1: the name \"\""},
      {R"({"name": "s", "rows": [{"name": "a"}, {"name": "a"}]})", "row a: two rows have that name"},
      {R"({"name": "s", "rows": [{"name": "a", "set": {"moe.routr": "vmoe"}}]})",
       "row a: moe.routr is not a setting; did you mean moe.router?"},
      {R"({"name": "s", "rows": [{"name": "a", "set": {"moe.router": "vmo"}}]})", "s.json: row a: moe.router"},
      {R"({"name": "s", "rows": [{"name": "a", "set": {"moe.top_k": 9}}]})", "s.json: row a: moe.top_k: 9 experts a token"},
      {R"({"name": "s", "rows": [{"name": "a"}, {"name": "b", "set": {"loss.kind": "l1", "model.dimensions": 3, "model.classes": 1}}]})",
       "s.json: row b: loss.kind: it and the baseline a do not predict the same"},
      {R"({"name": "s", "rows": [{"name": "dense"}], "baseline": "dens"})", "there is no row dens; did you mean dense?"},
      {R"({"name": "s", "families": {"rank": {"moe.basis_rank": 16}}})", "family rank: no setting has a list of values"},
      {R"({"name": "s", "families": {"rank": {"moe.basis_rank": [16], "moe.top_k": [1, 2]}}})", "lists of a family are taken side by side"},
      {R"({"name": "s", "families": {"rank": {"moe.basis_rnk": [16]}}})", "moe.basis_rnk is not a setting"},
      {R"([1])", "s.json: must be an object"},
  };
  for (const auto& [text, sentence] : cases) EXPECT_NE(refusal(text).find(sentence), std::string::npos) << text << "\n" << refusal(text);
  EXPECT_NE(refusal(R"({"name": "s"})", {{"train.seed", "1"}}).find("--train.seed: a study sets that itself"), std::string::npos);
}

TEST(StudyPlan, RowsAreFoundByTheirNames) {
  const Study study = study_of(R"({"name": "s", "rows": [{"name": "a"}, {"name": "vmoe", "set": {"moe.router": "vmoe"}}]})");
  EXPECT_EQ(rows_named(study, {}), (std::vector<size_t>{0, 1}));
  EXPECT_EQ(rows_named(study, {"vmoe"}), std::vector<size_t>{1});
  EXPECT_THROW(rows_named(study, {"vmo"}), InputError);
}

}  // namespace
}  // namespace ermoe
