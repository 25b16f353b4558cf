// What fits is computed from two measurements, and what is advised fits.
#include "tools/memory_advice.h"

#include <gtest/gtest.h>

namespace ermoe {
namespace {

TEST(ImagesThatFit, LeaveATenthAndWhatLiesBeside) {
  // 100 bytes beside, 50 an image
  const MeasuredImages few{.images = 4, .bytes = 300}, more{.images = 8, .bytes = 500};
  EXPECT_EQ(images_that_fit(few, more, 1000), 16);  // (900 - 100) / 50
  EXPECT_EQ(images_that_fit(few, more, 166), 0);
  EXPECT_EQ(images_that_fit(few, more, 167), 1);
  EXPECT_EQ(images_that_fit(few, more, 0), 0);
}

TEST(ImagesThatFit, TakeOneMeasurementForAll) {
  EXPECT_EQ(images_that_fit({.images = 2, .bytes = 100}, {}, 1000), 18);
  EXPECT_EQ(images_that_fit({.images = 2, .bytes = 100}, {.images = 4, .bytes = 90}, 1000), 18) << "noise in the second";
  EXPECT_EQ(images_that_fit({}, {}, 1000), 0);
  EXPECT_EQ(images_that_fit({.images = 1, .bytes = 0}, {}, 1000), 1 << 30);
}

TEST(ImagesThatFit, GrowWithTheRoom) {
  int64_t last = 0;
  for (size_t room = 0; room < 5000; room += 100) {
    const int64_t fitting = images_that_fit({.images = 1, .bytes = 130}, {.images = 3, .bytes = 250}, room);
    EXPECT_GE(fitting, last);
    if (fitting > 0) {
      EXPECT_LE(70 + 60 * static_cast<size_t>(fitting), room);
    }
    last = fitting;
  }
  EXPECT_GT(last, 50);
}

TEST(BatchAdvice, NamesABatchAndAnAccumulationThatFit) {
  EXPECT_EQ(batch_advice(256, 1, 100), "train.batch 96 would fit, or train.accumulate 4 with train.batch 256");
  EXPECT_EQ(batch_advice(256, 2, 5), "train.batch 10 would fit, or train.accumulate 64 with train.batch 256");
  EXPECT_EQ(batch_advice(7, 1, 3), "train.batch 3 would fit, or train.accumulate 7 with train.batch 7");
}

TEST(BatchAdvice, IsSmallerThanWhatDidNotFitAndHonestWhereNothingDoes) {
  EXPECT_EQ(batch_advice(64, 1, 1000), "train.batch 32 would fit, or train.accumulate 2 with train.batch 64");
  for (const auto& [batch, fitting] : {std::pair{64, 0}, {1, 1}})
    EXPECT_TRUE(batch_advice(batch, 1, fitting).starts_with("not one image fits")) << batch;
}

}  // namespace
}  // namespace ermoe
