// Settings from JSON files, presets and the command line: what wins over what, and what is refused with which sentence.
#include "tools/config_io.h"

#include "core/error.h"
#include "core/json.h"
#include "tools/command_line.h"
#include "tools/config_check.h"
#include "tools/config_table.h"
#include "tools/presets.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace ermoe {
namespace {

namespace fs = std::filesystem;

class ConfigFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("ermoe_config_" + std::to_string(::getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string file(const std::string& name, const std::string& text) {
    const auto path = folder_ / name;
    fs::create_directories(path.parent_path());
    std::ofstream(path) << text;
    return path.string();
  }

  fs::path folder_;
};

RunConfig from_json(const std::string& text) {
  RunConfig config;
  apply_json(config, parse_json(text, "run.json", kSettingsLimits), "run.json");
  return config;
}

std::string refusal(const std::string& text) {
  try {
    from_json(text);
  } catch (const InputError& e) {
    return e.what();
  }
  ADD_FAILURE() << text << " was not refused";
  return {};
}

CommandLine command(std::vector<std::string> words) {
  words.insert(words.begin(), "ermoe-train");
  std::vector<const char*> argv;
  for (const auto& word : words) argv.push_back(word.c_str());
  return parse_command_line("ermoe-train", "trains", static_cast<int>(argv.size()), argv.data());
}

std::string command_refusal(const std::vector<std::string>& words) {
  try {
    command(words);
  } catch (const InputError& e) {
    return e.what();
  }
  ADD_FAILURE() << "not refused";
  return {};
}

TEST_F(ConfigFiles, NestedAndDottedKeysMeanTheSame) {
  EXPECT_EQ(from_json(R"({"optim": {"lr": 0.25}})").optim.lr, 0.25);
  EXPECT_EQ(from_json(R"({"optim.lr": 0.25})").optim.lr, 0.25);
  const RunConfig config = from_json(
      R"({"moe": {"threshold": 0.2, "router": "vmoe", "center": false}, "data.mean": [0.5], "train.steps": 1e3, "model.volume": [8, 1e1, 4]})");
  EXPECT_EQ(config.model.moe.threshold, "0.2");
  EXPECT_EQ(config.model.moe.router, RouterKind::vmoe);
  EXPECT_FALSE(config.model.moe.center);
  EXPECT_EQ(config.data.mean, std::vector<double>{0.5});
  EXPECT_EQ(config.model.volume, (std::vector<int64_t>{8, 10, 4}));
  EXPECT_EQ(config.train.steps, 1000);
}

TEST_F(ConfigFiles, RefusalsNameFileAndKey) {
  EXPECT_EQ(refusal(R"({"optim": {"lrr": 1}})"), "run.json: optim.lrr is not a setting; did you mean optim.lr?");
  EXPECT_EQ(refusal(R"({"optm": {"lr": 1}})"), "run.json: optm is not a setting; did you mean optim?");
  EXPECT_EQ(refusal(R"({"optim": {"lr": "1"}})"), "run.json: optim.lr must be a number of at least 0, not \"1\"");
  EXPECT_EQ(refusal(R"({"train": {"batch": 1.5}})"), "run.json: train.batch must be a whole number from 1 to 16777216, not 1.5");
  EXPECT_EQ(refusal(R"({"optim": 3})"), "run.json: optim is a group of settings and must be an object as in {\"optim\": {...}}");
  EXPECT_EQ(refusal(R"({"optim": {"lr": 1}, "optim.lr": 2})"), "run.json: optim.lr is set twice");
  EXPECT_EQ(refusal(R"({"optim": {"lr": 1, "lr": 2}})"), "run.json: the key 'lr' stands twice in one object");
  EXPECT_EQ(refusal("[1]"), "run.json: the settings must be one JSON object");
  EXPECT_EQ(refusal("{\n  \"optim\": tru }"), "run.json: line 2, column 15 is not JSON: invalid literal");
  for (const char* bad :
       {R"({"optim.lr": null})", R"({"optim.lr": {}})", R"({"augment.flip": 1})", R"({"data.mean": 1})", R"({"model.volume": [1.5]})",
        R"({"model.volume": 8})", R"({"data.mean": ["1"]})", R"({"data.path": 5})", R"({"": 1})", R"({".": 1})",
        R"({"train.batch": 1e300})", R"({"train.seed": 18446744073709551615})", R"({"data": {"path": "a"}, "resume": "x"})"}) {
    EXPECT_THROW(from_json(bad), InputError) << bad;
  }
}

TEST_F(ConfigFiles, HostileJsonIsRefusedInOneLine) {
  for (const std::string& text : {std::string(1000000, '['), std::string(200000, '{'), R"({"a":)" + std::string(100, '['), std::string(),
                                  std::string("{\"optim\":{\"lr\":1e999}}"), std::string("{\"\xff\xfe\": 1}"), std::string(3, '\0')}) {
    const std::string message = refusal(text);
    EXPECT_LT(message.size(), 250u);
    EXPECT_EQ(message.find('\n'), std::string::npos);
    EXPECT_EQ(message.find("run.json: "), 0u);
  }
  EXPECT_NE(refusal("\"" + std::string(2 << 20, 'x') + "\"").find("above the limit of 1048576"), std::string::npos);
  EXPECT_THROW(read_json(folder_.string()), InputError);
  EXPECT_THROW(read_json((folder_ / "absent.json").string()), InputError);
  EXPECT_THROW(read_json("/dev/zero"), InputError);
}

TEST_F(ConfigFiles, JsonTestSuite) {
  const char* data = std::getenv("ERMOE_TEST_DATA");
  if (data == nullptr) GTEST_SKIP() << "ERMOE_TEST_DATA is not set";
  const auto archive = fs::path(data) / "corrupt_inputs.tar";
  if (!fs::exists(archive)) GTEST_SKIP() << "no corrupt_inputs.tar in ERMOE_TEST_DATA";
  ASSERT_EQ(std::system(("tar -xf '" + archive.string() + "' -C '" + folder_.string() + "' json").c_str()), 0);
  int accepted = 0, refused = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder_ / "json")) {
    const std::string path = entry.path().string(), name = entry.path().filename().string();
    if (!name.ends_with(".json")) continue;
    // The standard allows a key that comes twice; in settings it is a slip and is refused.
    const bool twice = name == "y_object_duplicated_key.json";
    if (name.starts_with("y_") && !twice) {
      EXPECT_NO_THROW(read_json(path)) << name;
      ++accepted;
    } else if (name.starts_with("n_") || twice) {
      try {
        read_json(path);
        ADD_FAILURE() << name << " was accepted";
      } catch (const InputError& e) {
        EXPECT_EQ(std::string(e.what()).find(path), 0u) << e.what();
        ++refused;
      }
    } else {
      try {
        read_json(path);
      } catch (const InputError&) {
      }
    }
    if (name != "y_object_empty.json") {
      EXPECT_THROW(load_config(path), InputError) << name;
    }
  }
  EXPECT_GT(accepted, 50);
  EXPECT_GT(refused, 100);
}

TEST_F(ConfigFiles, EverySettingSurvivesTheRunFoldersFile) {
  RunConfig config;
  config.preset = "cifar10";
  config.data.path = "a \"quoted\" path\n\xff";
  config.data.mean = {0.1, 1.0 / 3};
  config.data.std = {1, 2};
  config.model.moe.layers = "1,3";
  config.optim.lr = 1.0 / 3;
  config.train.freeze = {"a.*", "b"};
  config.train.device = DeviceChoice::cpu;
  config.train.resume = "elsewhere";
  const RunConfig read = load_config(file("config.json", config_to_json(config)));
  EXPECT_EQ(read.optim.lr, 1.0 / 3);
  EXPECT_EQ(read.train.resume, "");
  for (const auto& setting : config_table()) {
    if (setting.key == "train.resume" || setting.key == "data.path") continue;
    EXPECT_EQ(setting.get(read), setting.get(config)) << setting.key;
  }
}

TEST_F(ConfigFiles, CommandLineWinsOverFileOverPreset) {
  const std::string path = file("run.json", R"({"preset": "cifar10", "optim": {"lr": 0.25, "ema": 0.5}, "train.batch": 64})");
  const RunConfig config = command({"--optim.lr", "0.125", "--config", path, "--data", "/d", "--augment.flip=off"}).config;
  EXPECT_EQ(config.optim.lr, 0.125);
  EXPECT_EQ(config.optim.ema, 0.5);
  EXPECT_EQ(config.train.batch, 64);
  const int64_t width = command({"--preset=cifar10"}).config.model.width,
                small_width = command({"--preset=cifar10-small"}).config.model.width;
  ASSERT_NE(width, small_width);
  EXPECT_EQ(config.model.width, width);
  EXPECT_EQ(config.preset, "cifar10");
  EXPECT_EQ(config.data.path, "/d");
  EXPECT_FALSE(config.augment.flip);
  const RunConfig other = command({"--config=" + path, "--preset=cifar10-small"}).config;
  EXPECT_EQ(other.preset, "cifar10-small");
  EXPECT_EQ(other.model.width, small_width);
  EXPECT_EQ(other.optim.ema, 0.5);
}

TEST_F(ConfigFiles, FlagsOfEveryKind) {
  const RunConfig config = command({"--augment.flip", "--model.qk_norm", "on", "--moe.threshold", "-0.5", "--data.mean", "0.1,0.2",
                                    "--seed=7", "--seed", "8", "--train.name", "a=b c", "--moe.center=false", "--model.recompute"})
                               .config;
  EXPECT_TRUE(config.augment.flip);
  EXPECT_TRUE(config.model.qk_norm);
  EXPECT_TRUE(config.model.recompute);
  EXPECT_FALSE(config.model.moe.center);
  EXPECT_EQ(config.model.moe.threshold, "-0.5");
  EXPECT_EQ(config.data.mean, (std::vector<double>{0.1, 0.2}));
  EXPECT_EQ(config.train.seed, 8u);
  EXPECT_EQ(config.train.name, "a=b c");
}

TEST_F(ConfigFiles, CommandLineRefusals) {
  EXPECT_EQ(command_refusal({"--optim.lrr", "1"}), "--optim.lrr is not a flag; did you mean --optim.lr?");
  EXPECT_EQ(command_refusal({"--lr=1"}), "--lr is not a flag; did you mean --optim.lr?");
  EXPECT_EQ(command_refusal({"--optim.lr", "x"}), "--optim.lr must be a number of at least 0, not \"x\"");
  EXPECT_EQ(command_refusal({"--preset", "cifar"}),
            "preset: there is no \"cifar\"; choose one of fashion-mnist, cifar10-small, cifar10, cifar10-smoke, brain-age, "
            "brain-age-small, brain-age-phantom, retrieval, imagenet-s16");
  EXPECT_EQ(command_refusal({"stray"}), "\"stray\" is not understood; settings are given as --name value");
  EXPECT_NE(command_refusal({"--optim.lr"}).find("optim.lr"), std::string::npos);
  EXPECT_NE(command_refusal({"--config", "absent.json"}).find("absent.json"), std::string::npos);
}

TEST_F(ConfigFiles, HelpShowsEverySettingUnderItsSection) {
  const std::string help = command({"--help"}).help;
  size_t at = 0;
  for (const auto& setting : config_table()) {
    const size_t found = help.find("  --" + setting.key, at);
    ASSERT_NE(found, std::string::npos) << setting.key;
    at = found;
  }
  EXPECT_NE(help.find("optim: optimizer and learning rate"), std::string::npos);
  EXPECT_NE(help.find("[cosine]"), std::string::npos);
  EXPECT_EQ(command({}).help, "");
}

TEST_F(ConfigFiles, ResumeTakesTheRunsOwnSettings) {
  RunConfig first;
  first.optim.lr = 0.5;
  first.train.out = "moved/away";
  const fs::path run = folder_ / "run";
  file("run/config.json", config_to_json(first));
  fs::create_directories(run / "checkpoints" / "step-10");
  for (const auto& given : {run, run / "checkpoints" / "step-10", fs::path(run.string() + "/")}) {
    const RunConfig config = command({"--resume", given.string(), "--train.epochs", "99"}).config;
    EXPECT_EQ(config.optim.lr, 0.5);
    EXPECT_EQ(config.train.out, run.string());
    EXPECT_EQ(config.train.resume, given.string());
    EXPECT_EQ(config.train.epochs, 99);
  }
  EXPECT_EQ(command({"--resume", run.string(), "--out", "new"}).config.train.out, "new");
}

TEST_F(ConfigFiles, PresetsAreSound) {
  for (const auto& preset : presets()) {
    RunConfig config;
    ASSERT_NO_THROW(apply_preset(config, preset.name)) << preset.name;
    EXPECT_EQ(config.preset, preset.name);
    EXPECT_TRUE(validate(config).empty()) << preset.name;
  }
}

}  // namespace
}  // namespace ermoe
