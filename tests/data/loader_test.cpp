// Batches are the same with any number of threads and after a restart; broken files cost their sample, not the run.
#include "data/loader.h"

#include "tests/data/fixtures.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <thread>

namespace ermoe {
namespace {

using testing::CountingDataset;
using testing::input_error;

struct Row {
  std::vector<int64_t> indices;
  std::vector<int32_t> labels;
  std::vector<uint8_t> pixels;
  Cursor at;
  bool operator==(const Row&) const = default;
};

Row row_of(const Batch& batch) {
  const auto labels = batch.labels.span<int32_t>();
  const auto pixels = batch.images.span<uint8_t>();
  return {batch.indices, {labels.begin(), labels.end()}, {pixels.begin(), pixels.end()}, {batch.epoch, batch.step}};
}

class LoaderTest : public ::testing::Test {
 protected:
  static Sampler sampler(int64_t size, int64_t batch, Mode mode = Mode::train) { return {size, {11, 0, 1, batch, mode}}; }
  LoaderOptions options(int threads) {
    LoaderOptions result;
    result.format = {4, 3};
    result.threads = threads;
    result.warn = [this](const std::string& text) { warnings.push_back(text); };
    return result;
  }
  std::vector<Row> take(Loader& loader, int n) {
    std::vector<Row> rows;
    for (int i = 0; i < n; ++i) rows.push_back(row_of(loader.next()));
    return rows;
  }

  CachingAllocator host{make_host_source(), Fill::poison};
  std::vector<std::string> warnings;
};

TEST_F(LoaderTest, SameBatchesWithAnyNumberOfThreads) {
  const CountingDataset dataset(50, 5, 3, {4, 17});
  std::vector<std::vector<Row>> runs;
  for (int threads : {0, 1, 3}) {
    LoaderOptions with = options(threads);
    with.max_bad = 0.1;
    Loader loader(dataset, sampler(50, 8), host, with);
    runs.push_back(take(loader, 20));  // more than three epochs of six steps
    EXPECT_EQ(loader.bad_files(), 2);
  }
  EXPECT_EQ(runs[0], runs[1]);
  EXPECT_EQ(runs[0], runs[2]);
  EXPECT_EQ(runs[0][6].at, (Cursor{1, 0}));
}

TEST_F(LoaderTest, DeliversWhatTheSamplerSays) {
  const CountingDataset dataset(50, 4, 3);
  const Sampler order = sampler(50, 8);
  Loader loader(dataset, order, host, options(2));
  for (const Row& row : take(loader, 12)) {
    EXPECT_EQ(row.indices, order.indices(row.at));
    for (size_t b = 0; b < row.indices.size(); ++b) {
      EXPECT_EQ(row.labels[b], row.indices[b] % 3);
      for (size_t p = 0; p < 48; ++p) ASSERT_EQ(row.pixels[b * 48 + p], row.indices[b]);
    }
  }
}

TEST_F(LoaderTest, RestartsInMidEpoch) {
  const CountingDataset dataset(50, 4, 3);
  Loader first(dataset, sampler(50, 8), host, options(3));
  take(first, 9);
  const Cursor saved = first.cursor();
  EXPECT_EQ(saved, (Cursor{1, 3}));
  const std::vector<Row> expected = take(first, 8);
  Loader second(dataset, sampler(50, 8), host, options(1), saved);
  EXPECT_EQ(take(second, 8), expected);
  first.seek(saved);
  EXPECT_EQ(take(first, 8), expected);
}

TEST_F(LoaderTest, EvaluationDeliversEachSampleOnceAndTheRestShort) {
  const CountingDataset dataset(21, 4, 3);
  Loader loader(dataset, sampler(21, 8, Mode::eval), host, options(2));
  std::vector<int64_t> seen;
  for (int64_t s = 0; s < loader.steps_per_epoch(); ++s) {
    const Batch batch = loader.next();
    EXPECT_EQ(batch.images.shape(), (Shape{static_cast<int64_t>(batch.indices.size()), 4, 4, 3}));
    seen.insert(seen.end(), batch.indices.begin(), batch.indices.end());
  }
  ASSERT_EQ(seen.size(), 21u);
  for (int64_t i = 0; i < 21; ++i) EXPECT_EQ(seen[static_cast<size_t>(i)], i);
}

TEST_F(LoaderTest, EvaluationWithMoreRanksThanSamplesGivesEmptyBatches) {
  const CountingDataset dataset(2, 4, 3);
  Loader loader(dataset, Sampler(2, {0, 0, 3, 8, Mode::eval}), host, options(1));
  EXPECT_EQ(loader.next().images.shape(), (Shape{0, 4, 4, 3}));
}

TEST_F(LoaderTest, BrokenSampleIsReplacedByTheNextReadableOneAndNamedOnce) {
  const CountingDataset dataset(300, 4, 3, {7, 8, 299});
  Loader loader(dataset, sampler(300, 10), host, options(2));
  for (int epoch = 0; epoch < 2; ++epoch) {
    std::multiset<int64_t> seen;
    for (int s = 0; s < 30; ++s) {
      const Batch batch = loader.next();
      ASSERT_EQ(batch.indices.size(), 10u);
      seen.insert(batch.indices.begin(), batch.indices.end());
    }
    EXPECT_EQ(seen.count(7) + seen.count(8) + seen.count(299), 0u);
    EXPECT_EQ(seen.count(9), 3u);
    EXPECT_EQ(seen.count(0), 2u);
  }
  EXPECT_EQ(loader.bad_files(), 3);
  std::sort(warnings.begin(), warnings.end());
  EXPECT_EQ(warnings, (std::vector<std::string>{"sample299: broken", "sample7: broken", "sample8: broken"}));
}

TEST_F(LoaderTest, BrokenSampleIsLeftOutOfEvaluation) {
  const CountingDataset dataset(200, 4, 3, {3});
  Loader loader(dataset, sampler(200, 100, Mode::eval), host, options(1));
  const Batch batch = loader.next();
  EXPECT_EQ(batch.labels.shape(), (Shape{99}));
  EXPECT_EQ(std::count(batch.indices.begin(), batch.indices.end(), 3), 0);
  EXPECT_EQ(loader.next().labels.shape(), (Shape{100}));
}

TEST_F(LoaderTest, StopsPastMaxBadAtTheSameBatchWithAnyNumberOfThreads) {
  const CountingDataset dataset(200, 4, 3, {10, 60, 110});
  std::set<int> stopped_at;
  for (int threads : {0, 1, 3}) {
    Loader loader(dataset, sampler(200, 10), host, options(threads));
    int delivered = 0;
    const std::string message = input_error([&] {
      for (; delivered < 40; ++delivered) loader.next();
    });
    EXPECT_NE(message.find("3 of 200"), std::string::npos) << message;
    EXPECT_NE(message.find("sample"), std::string::npos) << message;
    EXPECT_THROW(loader.next(), InputError) << "a failed loader stays failed";
    stopped_at.insert(delivered);
  }
  EXPECT_EQ(stopped_at.size(), 1u);
}

TEST_F(LoaderTest, EveryFileBrokenEndsWithAnError) {
  std::set<int64_t> all;
  for (int64_t i = 0; i < 40; ++i) all.insert(i);
  const CountingDataset dataset(40, 4, 3, all);
  for (double max_bad : {0.0, 0.5, 1.0}) {
    LoaderOptions with = options(2);
    with.max_bad = max_bad;
    Loader loader(dataset, sampler(40, 10), host, with);
    EXPECT_THROW(loader.next(), InputError);
  }
}

TEST_F(LoaderTest, AnyOtherExceptionReachesTheCaller) {
  CountingDataset dataset(40, 4, 3);
  dataset.on_read = [](int64_t i) {
    if (i == 5) throw std::runtime_error("a fault of the engine");
  };
  for (int threads : {0, 2}) {
    Loader loader(dataset, sampler(40, 10), host, options(threads));
    EXPECT_THROW(
        {
          for (int i = 0; i < 4; ++i) loader.next();
        },
        std::runtime_error);
  }
}

TEST_F(LoaderTest, StaysWithinItsQueue) {
  CountingDataset dataset(1000, 4, 3);
  std::atomic<int64_t> reads = 0;
  dataset.on_read = [&](int64_t) { ++reads; };
  LoaderOptions with = options(3);
  with.prefetch = 5;
  Loader loader(dataset, sampler(1000, 10), host, with);
  loader.next();
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  while (reads < 60 && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(reads, 60) << "five batches ahead of the one delivered";
}

TEST_F(LoaderTest, GoesAwayWhileWorkersAreBusy) {
  CountingDataset dataset(1000, 4, 3);
  dataset.on_read = [](int64_t) { std::this_thread::sleep_for(std::chrono::milliseconds(1)); };
  const auto begin = std::chrono::steady_clock::now();
  for (int round = 0; round < 5; ++round) {
    Loader loader(dataset, sampler(1000, 500), host, options(4));
    if (round % 2 == 1) loader.seek({1, 1});
  }
  // A worker that finished its batch first would take half a second each time.
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(2));
}

TEST_F(LoaderTest, ReadsEachFileOnceWhereTheCacheHoldsThemAll) {
  CountingDataset dataset(60, 4, 3);
  std::atomic<int64_t> reads = 0;
  dataset.on_read = [&](int64_t) { ++reads; };
  LoaderOptions with = options(1);
  {
    Loader loader(dataset, sampler(60, 10), host, with);
    const std::vector<Row> rows = take(loader, 30);
    for (const Row& row : rows) {
      for (size_t b = 0; b < row.indices.size(); ++b) EXPECT_EQ(row.pixels[b * 48], row.indices[b]);
    }
    EXPECT_EQ(reads, 60);
  }
  with.cache_bytes = 60 * 48 - 1;
  Loader loader(dataset, sampler(60, 10), host, with);
  take(loader, 30);
  EXPECT_GE(reads, 60 + 300);
}

TEST_F(LoaderTest, MeasuresTheWait) {
  CountingDataset dataset(20, 4, 3);
  dataset.on_read = [](int64_t) { std::this_thread::sleep_for(std::chrono::milliseconds(2)); };
  Loader loader(dataset, sampler(20, 10), host, options(0));
  loader.next();
  EXPECT_GE(loader.wait_seconds(), 0.02);
}

TEST_F(LoaderTest, TellsOfAConversionOnce) {
  const CountingDataset grey(30, 4, 1);
  Loader loader(grey, sampler(30, 10), host, options(1));
  take(loader, 6);
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_NE(warnings[0].find("grey"), std::string::npos);
}

TEST_F(LoaderTest, RefusesSettingsThatCannotWork) {
  const CountingDataset dataset(30, 4, 3);
  const auto refused = [&](auto change) {
    LoaderOptions with = options(1);
    change(with);
    EXPECT_THROW(Loader(dataset, sampler(30, 10), host, with), InputError);
  };
  refused([](LoaderOptions& o) { o.format.channels = 2; });
  refused([](LoaderOptions& o) { o.format.size = 0; });
  refused([](LoaderOptions& o) { o.threads = -1; });
  refused([](LoaderOptions& o) { o.prefetch = 0; });
  refused([](LoaderOptions& o) { o.max_bad = std::nan(""); });
}

TEST(Prepare, CropsTheCentreOfTheLongerSide) {
  // Columns hold their number; of 10 columns the middle four remain.
  Image image{4, 10, 1, {}};
  for (int y = 0; y < 4; ++y) {
    for (int x = 0; x < 10; ++x) image.pixels.push_back(static_cast<uint8_t>(x));
  }
  std::vector<uint8_t> out(16 * 3);
  prepare(image, {4, 3}, out.data());
  for (size_t i = 0; i < out.size(); ++i) EXPECT_EQ(out[i], 3 + i / 3 % 4);
}

TEST(Prepare, ReducesColourToLuma) {
  const Image image{1, 1, 3, {255, 0, 0}}, white{1, 1, 3, {255, 255, 255}};
  uint8_t out = 0;
  prepare(image, {1, 1}, &out);
  EXPECT_EQ(out, 76);  // 0.299 * 255
  prepare(white, {1, 1}, &out);
  EXPECT_EQ(out, 255);
}

TEST(Prepare, ResizesAnyShapeToTheModels) {
  for (const auto& [height, width] : {std::pair{3, 7}, {7, 3}, {1, 1}, {100, 33}, {33, 99}}) {
    const Image image{height, width, 3, std::vector<uint8_t>(static_cast<size_t>(height * width * 3), 91)};
    std::vector<uint8_t> out(16 * 16 * 3, 0);
    prepare(image, {16, 3}, out.data());
    EXPECT_EQ(std::count(out.begin(), out.end(), 91), 16 * 16 * 3) << height << " x " << width;
  }
}

}  // namespace
}  // namespace ermoe
