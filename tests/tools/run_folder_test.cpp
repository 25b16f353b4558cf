// A run's folder: who may use it, and what stands in its logs after a fresh start, new columns, a crash and a resume.
#include "tools/run_folder.h"

#include "core/error.h"
#include "core/json.h"
#include "tests/tools/temp_folder.h"
#include "tools/config_io.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <cmath>
#include <fstream>

namespace ermoe {
namespace {

namespace fs = std::filesystem;
using testing::TempFolder;

RunConfig config_for(const std::string& out) {
  RunConfig config;
  config.train.out = out;
  return config;
}

TEST(RunFolder, HoldsConfigAndLogs) {
  TempFolder temp;
  RunConfig config = config_for(temp / "a/b");
  config.optim.lr = 0.5;
  RunFolder run(config);
  run.write({1, "train", {{"loss", 2.5}, {"lr", 1e-3}}});
  EXPECT_EQ(load_config(run.path() + "/config.json").optim.lr, 0.5);
  EXPECT_EQ(load_config(run.path() + "/config.json").train.out, temp / "a/b");
  EXPECT_TRUE(fs::is_directory(run.checkpoints()));
  EXPECT_EQ(TempFolder::read(run.path() + "/metrics.csv"), "step,split,loss,lr\n1,train,2.5,0.001\n");
  EXPECT_EQ(TempFolder::read(run.path() + "/metrics.jsonl"), "{\"step\":1,\"split\":\"train\",\"loss\":2.5,\"lr\":0.001}\n");
}

TEST(RunFolder, IsNotOverwritten) {
  TempFolder temp;
  const RunConfig config = config_for(temp / "run");
  { RunFolder run(config); }
  EXPECT_THROW(RunFolder{config}, InputError);
  for (const char* name : {"metrics.jsonl", "metrics.csv", "checkpoints/x"}) {
    TempFolder other;
    other.file(std::string("run/") + name, "");
    EXPECT_THROW(RunFolder{config_for(other / "run")}, InputError) << name;
  }
  temp.file("harmless/notes.txt", "");
  EXPECT_NO_THROW(RunFolder{config_for(temp / "harmless")});
  EXPECT_THROW(RunFolder{config_for(temp.file("file", ""))}, InputError);
  RunConfig elsewhere = config;  // resuming another run is no leave to overwrite this one
  elsewhere.train.resume = temp / "harmless";
  EXPECT_THROW(RunFolder{elsewhere}, InputError);
}

TEST(RunFolder, BelongsToOneProcessAtATime) {
  TempFolder temp;
  RunConfig config = config_for(temp / "run");
  RunFolder first(config);
  config.train.resume = config.train.out;
  try {
    RunFolder second(config);
    ADD_FAILURE() << "two runs in one folder";
  } catch (const InputError& e) {
    EXPECT_NE(std::string(e.what()).find("another process"), std::string::npos) << e.what();
  }
}

TEST(RunFolder, DefaultFoldersGetNumbers) {
  TempFolder temp;
  const auto before = fs::current_path();
  fs::current_path(temp.path());
  RunConfig config;
  config.train.name = "trial";
  EXPECT_EQ(RunFolder(config).path(), "runs/trial");
  EXPECT_EQ(RunFolder(config).path(), "runs/trial-2");
  config.train.name = "../escape";
  EXPECT_THROW(RunFolder{config}, InputError);
  config.train.name = "";
  EXPECT_EQ(RunFolder(config).path().size(), std::string("runs/20260101-000000").size());
  fs::current_path(before);
}

TEST(RunFolder, ResumingCutsRowsThatAreDoneAnew) {
  TempFolder temp;
  RunConfig config = config_for(temp / "run");
  {
    RunFolder run(config);
    for (int64_t step = 1; step <= 5; ++step) run.write({step, "train", {{"loss", 10.0 - static_cast<double>(step)}}});
    run.write({5, "eval", {{"accuracy", 0.5}}});
  }
  // A crash in the middle of a line leaves its first half.
  std::ofstream(temp / "run/metrics.csv", std::ios::app) << "2,train";
  std::ofstream(temp / "run/metrics.jsonl", std::ios::app) << "{\"step\":2,\"spl";
  config.train.resume = temp / "run/checkpoints/step-3";
  fs::create_directories(config.train.resume);
  {
    RunFolder run(config, 3);
    run.write({4, "train", {{"loss", 1}, {"gini", 0.25}}});
  }
  EXPECT_EQ(TempFolder::read(temp / "run/metrics.csv"),
            "step,split,loss,accuracy,gini\n1,train,9,,\n2,train,8,,\n3,train,7,,\n4,train,1,,0.25\n");
  std::ifstream lines(temp / "run/metrics.jsonl");
  std::vector<int64_t> steps;
  for (std::string line; std::getline(lines, line);) steps.push_back(parse_json(line, "line").at("step").get<int64_t>());
  EXPECT_EQ(steps, (std::vector<int64_t>{1, 2, 3, 4}));
}

TEST(MetricsLog, ColumnsGrowToTheRight) {
  TempFolder temp;
  MetricsLog log(temp.path().string(), 0);
  log.write({1, "train", {{"loss", 1.5}}});
  log.write({1, "eval", {{"accuracy", 0.75}, {"loss", 2}}});
  log.write({2, "train", {{"loss", NAN}, {"gnorm", INFINITY}}});
  EXPECT_EQ(TempFolder::read(temp / "metrics.csv"), "step,split,loss,accuracy,gnorm\n1,train,1.5,,\n1,eval,2,0.75,\n2,train,nan,,inf\n");
  const std::string jsonl = TempFolder::read(temp / "metrics.jsonl");
  EXPECT_NE(jsonl.find("{\"step\":2,\"split\":\"train\",\"loss\":null,\"gnorm\":null}\n"), std::string::npos) << jsonl;
}

TEST(MetricsLog, RefusesAForeignTableAndUnfitNames) {
  TempFolder temp;
  temp.file("metrics.csv", "name,age\n1,2\n");
  EXPECT_THROW(MetricsLog(temp.path().string(), 0), InputError);
  TempFolder other;
  MetricsLog log(other.path().string(), 0);
  EXPECT_THROW(log.write({1, "train", {{"a,b", 1}}}), Error);
  EXPECT_THROW(log.write({1, "", {{"a", 1}}}), Error);
  EXPECT_EQ(TempFolder::read(other / "metrics.csv"), "");
}

}  // namespace
}  // namespace ermoe
