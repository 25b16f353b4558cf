// What the report says of a dual encoder: recalls as they are, captions with what they find, and images that could not be read left out.
#include "tools/report_pairs.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace ermoe {
namespace {

using nlohmann::ordered_json;

/// Three images of one colour each.
class Colours final : public ImageDataset {
 public:
  int64_t size() const override { return 3; }
  const std::vector<std::string>& class_names() const override { return names_; }
  int32_t label(int64_t) const override { return 0; }
  std::string name(int64_t i) const override { return "image" + std::to_string(i); }
  Image read(int64_t i) const override {
    return {.height = 2, .width = 2, .channels = 3, .pixels = std::vector<uint8_t>(12, static_cast<uint8_t>(80 * i))};
  }

 private:
  std::vector<std::string> names_ = {"image"};
};

class ReportPairs : public ::testing::Test {
 protected:
  Tensor rows(const std::vector<float>& values, int64_t width) {
    return Tensor::from<float>(allocator_, {std::ssize(values) / width, width}, values);
  }
  CachingAllocator allocator_{make_host_source()};
  CaptionDataset captions_{std::make_shared<Colours>(), {"zero", "nought", "one", "two", "pair"}, {0, 2, 3, 5}};
};

TEST_F(ReportPairs, SayWhatCaptionsFind) {
  // "nought" lies closer to image 1 than to its own.
  const PairFeatures features{.samples = {0, 1, 2},
                              .image = rows({1, 0, 0, 0, 1, 0, 0, 0, 1}, 3),
                              .text = rows({1, 0, 0, 0.6f, 0.8f, 0, 0, 1, 0, 0, 0, 1, 0, 0, 1}, 3),
                              .owners = {0, 0, 1, 2, 2}};
  const ordered_json found = report_found(features, captions_, 2);
  ASSERT_EQ(found["chosen"].size(), 2u);
  EXPECT_EQ(found["chosen"][0]["caption"], "zero");
  EXPECT_EQ(found["chosen"][0]["place"], 1);
  EXPECT_EQ(found["chosen"][0]["best"].size(), 3u);
  EXPECT_EQ(found["chosen"][1]["caption"], "one") << "from all over the split";
  ASSERT_EQ(found["worst"].size(), 1u) << "what comes first is not the worst";
  EXPECT_EQ(found["worst"][0]["caption"], "nought");
  EXPECT_EQ(found["worst"][0]["place"], 2);
  EXPECT_EQ(found["worst"][0]["own"], 0);
  EXPECT_EQ(found["worst"][0]["best"][0]["image"], 1);
  EXPECT_EQ(found["pictures"]["1"]["name"], "image1");
  EXPECT_TRUE(found["pictures"]["1"]["image"].get<std::string>().starts_with("data:image/png;base64,"));
}

TEST_F(ReportPairs, KeepCaptionsWithTheirImagesWhereOneIsMissing) {
  const PairFeatures features{.samples = {0, 2},  // image 1 could not be read, nor its caption be used
                              .image = rows({1, 0, 0, 1}, 2),
                              .text = rows({1, 0, 1, 0, 0, 1, 0, 1}, 2),
                              .owners = {0, 0, 1, 1}};
  const ordered_json found = report_found(features, captions_, 4);
  ASSERT_EQ(found["chosen"].size(), 4u);
  EXPECT_EQ(found["chosen"][2]["caption"], "two");
  EXPECT_EQ(found["chosen"][2]["own"], 2);
  EXPECT_EQ(found["chosen"][3]["caption"], "pair");
  EXPECT_TRUE(found["worst"].empty());
  EXPECT_FALSE(found["pictures"].contains("1"));
}

TEST_F(ReportPairs, RecallsAreShares) {
  RetrievalReport report;
  report.all.captions = 5;
  report.all.to_text.recall_1 = 0.25;
  report.all.to_image = {.recall_1 = 0, .recall_5 = 0.5, .recall_10 = 1, .median_rank = 3.5, .mean_rank = 4};
  ordered_json recall = report_recall(report);
  EXPECT_EQ(recall["to_text"]["recall_1"], 0.25);
  EXPECT_EQ(recall["to_image"]["median_rank"], 3.5);
  EXPECT_EQ(recall["rsum"], 175);
  EXPECT_FALSE(recall.contains("folds"));
  report.folds = report.all;
  EXPECT_EQ(report_recall(report)["folds"]["rsum"], 175);
}

}  // namespace
}  // namespace ermoe
