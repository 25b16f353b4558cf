// A data set on the device gives the batches that the loader gives, byte for byte; both go on where they were.
#include "tools/batch_source.h"

#include "tests/data/fixtures.h"
#include "tests/gpu_bench.h"

#include <gtest/gtest.h>

namespace ermoe::testing {
namespace {

struct Row {
  std::vector<uint8_t> pixels;
  std::vector<int32_t> labels;
  std::vector<int64_t> indices;
  Cursor at;
  bool operator==(const Row&) const = default;
};

std::vector<Row> take(BatchSource& source, const ExecContext& ctx, int64_t count) {
  std::vector<Row> rows;
  for (int64_t i = 0; i < count; ++i) {
    const Cursor before = source.cursor();
    const DeviceBatch batch = source.next(ctx);
    EXPECT_EQ(batch.at, before);
    rows.push_back({to_vector<uint8_t>(batch.images), to_vector<int32_t>(batch.labels), batch.indices, batch.at});
  }
  return rows;
}

Sampler sampler_of(int64_t n, Mode mode) { return {n, {.seed = 3, .batch = 8, .mode = mode}}; }

LoaderOptions options_of(const WarnFn& warn = {}) {
  return {.format = {.size = 5, .channels = 3}, .threads = 2, .max_bad = 0.2, .warn = warn};
}

/// Broken ones at the beginning, in a row, and at the end, whose place the first readable one takes.
CountingDataset data_set() { return {61, 5, 3, {0, 7, 8, 60}}; }

void expect_the_loaders_batches(const ExecContext& ctx, CachingAllocator& host) {
  const CountingDataset data = data_set();
  const ResidentSamples resident = load_resident(data, host, *ctx.allocator, options_of());
  for (const Mode mode : {Mode::train, Mode::eval}) {
    const auto streamed = streamed_batches(std::make_unique<Loader>(data, sampler_of(61, mode), host, options_of()));
    const auto picked = resident_batches(resident, sampler_of(61, mode), host);
    EXPECT_EQ(picked->steps_per_epoch(), streamed->steps_per_epoch());
    EXPECT_EQ(take(*picked, ctx, 20), take(*streamed, ctx, 20));
    const Cursor middle{1, 3};
    streamed->seek(middle);
    picked->seek(middle);
    EXPECT_EQ(take(*picked, ctx, 9), take(*streamed, ctx, 9));
    EXPECT_EQ(picked->cursor(), streamed->cursor());
  }
}

TEST(BatchSource, ResidentSamplesGiveTheLoadersBatches) {
  TestBench bench;
  expect_the_loaders_batches(bench.ctx, bench.allocator);
}

TEST(BatchSource, BrokenFilesAreNamedOnceAndStopPastMaxBad) {
  TestBench bench;
  std::vector<std::string> warnings;
  LoaderOptions options = options_of([&](const std::string& text) { warnings.push_back(text); });
  const ResidentSamples resident = load_resident(data_set(), bench.allocator, bench.allocator, options);
  EXPECT_EQ(resident.samples.size(), 57u);
  EXPECT_EQ(warnings, (std::vector<std::string>{"sample0: broken", "sample7: broken", "sample8: broken", "sample60: broken"}));
  options.max_bad = 0.05;
  EXPECT_THROW(load_resident(data_set(), bench.allocator, bench.allocator, options), InputError);
  options.max_bad = 1;
  EXPECT_THROW(load_resident(CountingDataset(2, 5, 3, {0, 1}), bench.allocator, bench.allocator, options), InputError);
}

TEST(BatchSource, TellsHowFarLoadingIs) {
  TestBench bench;
  std::vector<int64_t> done;
  const CountingDataset data(30, 5, 3);
  const LoaderOptions options{.format = {.size = 512, .channels = 3}, .threads = 2, .warn = {}};
  load_resident(data, bench.allocator, bench.allocator, options, [&](int64_t n) { done.push_back(n); });
  ASSERT_GT(done.size(), 2u);
  EXPECT_TRUE(std::ranges::is_sorted(done));
  EXPECT_EQ(done.back(), 30);
}

#if defined(ERMOE_WITH_CUDA)
/// From page-locked memory that is handed out again as soon as it is given back.
void expect_gpu_agrees() {
  GpuBench gpu;
  CachingAllocator host(test_gpu()->page_locked(), Fill::poison);
  expect_the_loaders_batches(gpu.ctx, host);
  const CountingDataset data = data_set();
  TestBench cpu;
  const auto there = streamed_batches(std::make_unique<Loader>(data, sampler_of(61, Mode::train), host, options_of()));
  const auto here = streamed_batches(std::make_unique<Loader>(data, sampler_of(61, Mode::train), cpu.allocator, options_of()));
  EXPECT_EQ(take(*there, gpu.ctx, 200), take(*here, cpu.ctx, 200));
}

TEST(BatchSource, OnAGpuGivesTheSameBytes) { ERMOE_NEEDS_GPU(expect_gpu_agrees()); }
#endif

}  // namespace
}  // namespace ermoe::testing
