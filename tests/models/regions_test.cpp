// Regional experts: how regions are written, and where the tokens of a model go by them.
#include "models/regions.h"

#include "tests/models/tiny_model.h"
#include "tests/scratch.h"

#include <algorithm>
#include <fstream>
#include <functional>

namespace ermoe::testing {
namespace {

std::string fault_of(const std::function<void()>& fn) {
  try {
    fn();
  } catch (const InputError& e) {
    return e.what();
  }
  return "accepted";
}

TEST(Regions, AreWrittenAsText) {
  EXPECT_EQ(parse_regions("0:1,2;1:3"), (Regions{{1, 2}, {3}}));
  EXPECT_EQ(parse_regions("2:7,5;0:5"), (Regions{{5}, {}, {5, 7}}));
  EXPECT_TRUE(parse_regions("").empty());
  for (const char* text : {"0:1,2;1:3", "0:5;2:5,7", "3:65535", ""}) EXPECT_EQ(regions_text(parse_regions(text)), text);
}

TEST(Regions, AreReadFromAFile) {
  ScratchFolder folder;
  const std::string path = folder.file("regions.json");
  const auto of = [&](const char* json) {
    std::ofstream(path) << json;
    return parse_regions(path);
  };
  EXPECT_EQ(of(R"({"1": [3, 2], "0": [1]})"), (Regions{{1}, {2, 3}}));
  EXPECT_NE(fault_of([&] { of("[1, 2]"); }).find(path), std::string::npos);
  EXPECT_NE(fault_of([&] { of("{}"); }).find("table"), std::string::npos);
  EXPECT_NE(fault_of([&] { of(R"({"0": 1})"); }).find("list of labels"), std::string::npos);
  EXPECT_NE(fault_of([&] { of(R"({"0": ["x"]})"); }).find("is no label"), std::string::npos);
  EXPECT_NE(fault_of([&] { of(R"({"0": [1.5]})"); }).find("is no label"), std::string::npos);
  EXPECT_NE(fault_of([&] { of(R"({"first": [1]})"); }).find("is no expert"), std::string::npos);
  EXPECT_NE(fault_of([&] { parse_regions(folder.file("none.json")); }), "accepted");
}

TEST(Regions, AnythingElseIsRefused) {
  for (const char* bad : {"0", "0:", ":1", "0:1,", "0:,1", "0:1;", "0:1;;1:2", "0:1;0:2", "0:1,1", "0:0", "0:-1", "0:65536", "-1:2",
                          "4096:1", "a:1", "0:1 2", "0=1", ";"})
    EXPECT_NE(fault_of([&] { parse_regions(bad); }), "accepted") << bad;
}

/// Four experts; 0 and 1 share label 2, and 5 belongs to nobody.
VitConfig tiny_regional() {
  VitConfig c = tiny_config();
  c.dimensions = 3;
  c.moe.free_experts = 2;
  c.moe.regions = "0:1,2;1:2;2:3;3:4";
  c.moe.region_share = 0.25;
  return c;
}

std::string refusal_of(const std::function<void(VitConfig&)>& change) {
  VitConfig config = tiny_regional();
  change(config);
  return fault_of([&] { check_model(config); });
}

TEST(Regions, ThatDoNotFitTheModelAreRefusedByTheirKey) {
  EXPECT_EQ(refusal_of([](VitConfig&) {}), "accepted");
  EXPECT_EQ(refusal_of([](VitConfig& c) { c.moe.layers = "none", c.moe.free_experts = 0; }), "accepted")
      << "a dense model has no use for them";
  const std::vector<std::pair<std::string, std::function<void(VitConfig&)>>> cases = {
      {"moe.free_experts: moe.regions wants one", [](VitConfig& c) { c.moe.free_experts = 0; }},
      {"moe.regions: maps of regions go with volumes", [](VitConfig& c) { c.dimensions = 2; }},
      {"moe.regions: only moe.router ermoe", [](VitConfig& c) { c.moe.router = RouterKind::linear, c.moe.free_experts = 0; }},
      {"moe.regions: expert 3 does not exist", [](VitConfig& c) { c.moe.experts = 3; }},
      {"moe.regions: expert 4 of moe.experts 5 has no labels", [](VitConfig& c) { c.moe.experts = 5; }},
      {"moe.regions: expert 0 of moe.experts 4 has no labels", [](VitConfig& c) { c.moe.regions = "1:2;2:3;3:4"; }},
      {"moe.regions: ", [](VitConfig& c) { c.moe.regions = "0;1"; }},
  };
  for (const auto& [start, change] : cases) EXPECT_TRUE(refusal_of(change).starts_with(start)) << refusal_of(change);
}

/// Labels (B, 8, 8, 8): all of patch p of image b has label (p + b) mod 6, but for a fifth of it, which has label 3.
Tensor labels_by_patch(TinyModel& tiny) {
  const Tensor labels = Tensor::zeros(tiny.bench.allocator, {tiny.batch, 8, 8, 8}, DType::f32);
  for (int64_t i = 0; i < labels.numel(); ++i) {
    const int64_t b = i / 512, z = i / 64 % 8, y = i / 8 % 8, x = i % 8, p = (z / 4 * 2 + y / 4) * 2 + x / 4;
    const int64_t inside = (z % 4 * 4 + y % 4) * 4 + x % 4;
    labels.data<float>()[i] = static_cast<float>(inside < 12 ? 3 : (p + b) % 6);
  }
  return labels;
}

TEST(Regions, DecideWhichExpertsAVolumesTokensGoTo) {
  for (Pool pool : {Pool::token, Pool::average}) {
    VitConfig config = tiny_regional();
    config.pool = pool;
    TinyModel tiny(config);
    const RegionMask mask(tiny.bench.ctx, config);
    ASSERT_TRUE(mask.wanted());
    tiny.allow = mask(tiny.bench.ctx, labels_by_patch(tiny));
    expect_gradients_match_differences(tiny, 2);
    const int64_t prefix = pool == Pool::token ? 1 : 0, T = 8 + prefix, K = 2;
    ASSERT_EQ(tiny.allow.shape(), (Shape{tiny.batch * T, 4}));
    const std::vector<std::vector<int32_t>> experts_of_label{{}, {0}, {0, 1}, {2}, {3}, {}};
    const auto ids = tiny.routes.at(0).plan.expert_ids.span<int32_t>();
    for (int64_t n = 0; n < tiny.batch * T; ++n) {
      const int64_t p = n % T - prefix;
      const auto own = p < 0 ? std::vector<int32_t>{} : experts_of_label[static_cast<size_t>((p + n / T) % 6)];
      std::vector<int32_t> regional;
      for (int64_t k = 0; k < K; ++k) {
        const int32_t id = ids[static_cast<size_t>(n * K + k)];
        EXPECT_GE(id, 0) << "an empty slot";
        if (id < 4) regional.push_back(id);
      }
      std::ranges::sort(regional);
      EXPECT_EQ(regional, own) << "token " << n << ": all of its own, and free ones for the rest";
    }
  }
}

TEST(Regions, OfNoneMakeNoMask) {
  TinyModel tiny;
  const RegionMask none(tiny.bench.ctx, tiny.model.config());
  EXPECT_FALSE(none.wanted());
  EXPECT_FALSE(none(tiny.bench.ctx, {}).defined());
  VitConfig dense = tiny_regional();
  dense.moe.layers = "none";
  EXPECT_FALSE(RegionMask(tiny.bench.ctx, dense).wanted());
  const RegionMask mask(tiny.bench.ctx, tiny_regional());
  EXPECT_THROW(mask(tiny.bench.ctx, Tensor::zeros(tiny.bench.allocator, {1, 8, 8, 4}, DType::i32)), Error);
}

}  // namespace
}  // namespace ermoe::testing
