// The table of settings: every entry writes where it reads, refuses what it should, and unknown names get a suggestion.
#include "tools/config_table.h"

#include "core/enum_names.h"
#include "core/error.h"
#include "tests/scratch.h"
#include "tools/config_io.h"

#include <gtest/gtest.h>

#include <fstream>
#include <set>

namespace ermoe {
namespace {

/// The message of the InputError that `fn` throws; fails the test where it throws none.
template <typename Fn>
std::string refusal(Fn&& fn) {
  try {
    fn();
  } catch (const InputError& e) {
    return e.what();
  }
  ADD_FAILURE() << "nothing was refused";
  return {};
}

void set(RunConfig& config, std::string_view key, std::string_view text) {
  const Setting* setting = find_setting(key);
  ASSERT_NE(setting, nullptr) << key;
  set_from_text(config, *setting, text, "--");
}

/// A legal value that differs from the default.
std::string other_value(const Setting& setting, const RunConfig& defaults) {
  const std::string now = to_text(setting.get(defaults));
  std::vector<std::string> candidates = setting.choices;
  for (const char* c : {"true", "false", "2", "3", "0.25", "0.5", "last:1", "0:1", "0:30", "0.25,0.5", "30", "some text"})
    candidates.emplace_back(c);
  for (const auto& candidate : candidates) {
    if (candidate == now) continue;
    RunConfig config;
    try {
      set_from_text(config, setting, candidate, "");
    } catch (const InputError&) {
      continue;
    }
    if (setting.get(config) != setting.get(defaults)) return candidate;
  }
  ADD_FAILURE() << "no other value for " << setting.key;
  return {};
}

TEST(EnumNames, ComeFromTheEnumerators) {
  EXPECT_EQ(enum_name(Orthogonality::cholesky_qr), "cholesky_qr");
  EXPECT_EQ(enum_name(DeviceChoice::auto_), "auto");
  EXPECT_EQ(enum_names<Schedule>().size(), 4u);
  EXPECT_EQ(parse_enum<DeviceChoice>("auto"), DeviceChoice::auto_);
  EXPECT_EQ(parse_enum<RouterKind>("switch_lbl"), RouterKind::switch_lbl);
  EXPECT_FALSE(parse_enum<RouterKind>("switch").has_value());
  EXPECT_EQ(enum_name(static_cast<Pool>(7)), "?");
}

TEST(ConfigTable, KeysAreUniqueAndDescribed) {
  std::set<std::string> names;
  for (const auto& setting : config_table()) {
    EXPECT_TRUE(names.insert(setting.key).second) << setting.key;
    if (!setting.short_name.empty() && setting.short_name != setting.key) {
      EXPECT_TRUE(names.insert(setting.short_name).second) << setting.short_name;
    }
    EXPECT_FALSE(setting.help.empty()) << setting.key;
    if (setting.kind == Kind::choice) {
      EXPECT_GE(setting.choices.size(), 2u) << setting.key;
    }
  }
}

TEST(ConfigTable, DefaultsAreLegalAndSurviveTheirOwnText) {
  const RunConfig defaults;
  for (const auto& setting : config_table()) {
    RunConfig config;
    EXPECT_NO_THROW(set_from_text(config, setting, to_text(setting.get(defaults)), "")) << setting.key;
    EXPECT_EQ(setting.get(config), setting.get(defaults)) << setting.key;
  }
}

TEST(ConfigTable, EachSettingWritesItsOwnMemberAndNoOther) {
  const RunConfig defaults;
  for (const auto& setting : config_table()) {
    RunConfig config;
    set_from_text(config, setting, other_value(setting, defaults), "");
    for (const auto& other : config_table()) {
      EXPECT_EQ(other.get(config) != other.get(defaults), other.key == setting.key) << setting.key << " and " << other.key;
    }
  }
}

TEST(ConfigTable, ShortFormsNameTheirKeys) {
  for (const auto& [short_name, key] :
       std::initializer_list<std::pair<const char*, const char*>>{{"data", "data.path"},
                                                                  {"out", "train.out"},
                                                                  {"resume", "train.resume"},
                                                                  {"init", "train.init"},
                                                                  {"freeze", "train.freeze"},
                                                                  {"overfit", "data.overfit"},
                                                                  {"threads", "train.threads"},
                                                                  {"seed", "train.seed"},
                                                                  {"device", "train.device"},
                                                                  {"max_bad_steps", "train.max_bad_steps"}}) {
    ASSERT_NE(find_setting(short_name), nullptr) << short_name;
    EXPECT_EQ(find_setting(short_name)->key, key);
  }
}

TEST(ConfigTable, NumbersAreReadStrictly) {
  RunConfig config;
  set(config, "optim.lr", "3e-4");
  EXPECT_EQ(config.optim.lr, 3e-4);
  set(config, "train.steps", "1e4");
  EXPECT_EQ(config.train.steps, 10000);
  set(config, "train.seed", "9223372036854775807");
  EXPECT_EQ(config.train.seed, 9223372036854775807u);
  set(config, "data.mean", "0.5,0.25");
  EXPECT_EQ(config.data.mean, (std::vector<double>{0.5, 0.25}));
  set(config, "model.volume", "160,1e2,7");
  EXPECT_EQ(config.model.volume, (std::vector<int64_t>{160, 100, 7}));
  set(config, "freeze", "patch_embed.*,pos_embed");
  EXPECT_EQ(config.train.freeze.size(), 2u);
  for (const char* bad : {"", "abc", "1.5", "1e-3", "12x", "nan", "inf", "0x10", " 5", "99999999999999999999", "-1"}) {
    EXPECT_THROW(set(config, "train.steps", bad), InputError) << bad;
  }
  for (const char* bad : {"", "abc", "nan", "inf", "-inf", "1e999", "1,5", "1e", "--"}) {
    EXPECT_THROW(set(config, "optim.lr", bad), InputError) << bad;
  }
  EXPECT_THROW(set(config, "data.std", "0.5,0"), InputError);
  EXPECT_THROW(set(config, "data.std", "0.5,,1"), InputError);
  for (const char* bad : {"8,0,8", "8,8,4097", "8,,8", "8,1.5,8", "8x8x8"}) {
    EXPECT_THROW(set(config, "model.volume", bad), InputError) << bad;
  }
}

TEST(ConfigTable, RegionsAreKeptThemselvesAndNotTheirFile) {
  testing::ScratchFolder folder;
  const std::string path = folder.file("regions.json");
  std::ofstream(path) << R"({"1": [3], "0": [2, 1]})";
  RunConfig config;
  set(config, "moe.regions", path);
  EXPECT_EQ(config.model.moe.regions, "0:1,2;1:3");
  set(config, "moe.regions", "");
  EXPECT_EQ(config.model.moe.regions, "");
  EXPECT_TRUE(refusal([&] { set(config, "moe.regions", "0:x"); }).starts_with("--moe.regions: \"x\" is no label"));
}

TEST(ConfigTable, RefusalsNameKeyRangeAndChoices) {
  RunConfig config;
  EXPECT_EQ(refusal([&] { set(config, "data.max_bad", "2"); }), "--data.max_bad must be a number from 0 to 1, not \"2\"");
  EXPECT_EQ(refusal([&] { set(config, "loss.smoothing", "1"); }), "--loss.smoothing must be a number from 0 to below 1, not \"1\"");
  EXPECT_EQ(refusal([&] { set(config, "optim.schedule", "cosin"); }),
            "--optim.schedule must be one of cosine, linear, constant, rsqrt, not \"cosin\"");
  EXPECT_EQ(refusal([&] { set(config, "train.batch", "0"); }), "--train.batch must be a whole number from 1 to 16777216, not \"0\"");
  EXPECT_EQ(refusal([&] { set(config, "moe.threshold", "quantile:1"); }),
            "--moe.threshold: the q of quantile:q must lie between 0 and 1, both excluded, not 1");
}

TEST(ConfigTable, SuggestsTheNearestName) {
  EXPECT_EQ(unknown_setting("optim.lrr"), "optim.lrr is not a setting; did you mean optim.lr?");
  EXPECT_EQ(nearest_setting("lr"), "optim.lr");
  EXPECT_EQ(nearest_setting("model.top_k"), "moe.top_k");
  EXPECT_EQ(nearest_setting("trian.batch"), "train.batch");
  EXPECT_EQ(nearest_setting("max-bad-steps"), "max_bad_steps");
  EXPECT_EQ(nearest_setting("optm"), "optim");
  EXPECT_EQ(nearest_setting("quite something else"), "");
  EXPECT_EQ(nearest_setting(std::string(100000, 'x')), "");
}

TEST(ConfigTable, ChangesAreListedAgainstTheDefaults) {
  RunConfig config;
  EXPECT_EQ(describe_changes(config), "");
  config.optim.lr = 0.5;
  EXPECT_NE(describe_changes(config).find("optim.lr                 0.5                  (default 0.001)\n"), std::string::npos);
}

}  // namespace
}  // namespace ermoe
