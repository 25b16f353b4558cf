// A GPU's JPEG engines against the processor's decoder: pictures alike but for rounding, whatever the file, however many ask.
#include "data/decode_ahead.h"
#include "data/plain_jpeg.h"
#include "data/tar.h"
#include "tests/cuda/gpu.h"
#include "tests/data/image_samples.h"
#include "tests/data/jpeg_files.h"
#include "tests/data/test_data.h"

#include <chrono>
#include <cmath>
#include <deque>
#include <numbers>
#include <random>
#include <thread>

namespace ermoe::testing {
namespace {

class JpegEngines : public OnGpu {
 protected:
  void SetUp() override {
    OnGpu::SetUp();
    if (IsSkipped()) return;
    gpu = make_gpu(find_gpus().gpus[0].index);
    FoundJpegEngine found = gpu->jpeg_engine();
    const bool has_none = found.fault.find("no nvJPEG") != std::string::npos || found.fault.find("no engine") != std::string::npos;
    if (!found.engine && has_none) GTEST_SKIP() << "no JPEG engine: " << found.fault;
    ASSERT_TRUE(found.engine) << found.fault;  // anything else is a fault of ours, or of the machine
    engine = std::move(found.engine);
  }

  JpegPixels pixels_of(const std::string& file) {
    const auto plain = find_plain_jpeg(bytes_in(file));
    if (!plain) return {};
    return engine->start(std::make_shared<const std::string>(file), plain->height, plain->width).get();
  }

  std::unique_ptr<Gpu> gpu;
  std::unique_ptr<JpegEngine> engine;
};

/// Waves of 64 pixels and more: chroma changes so slowly that the way of smoothing it makes no difference of note.
Image waves(int64_t height, int64_t width) {
  Image image{height, width, 3, {}};
  const auto wave = [](int64_t at, double length) { return 60 * std::sin(2 * std::numbers::pi * static_cast<double>(at) / length); };
  for (int64_t y = 0; y < height; ++y)
    for (int64_t x = 0; x < width; ++x)
      for (const double v : {128 + wave(x, 64) + wave(y, 100), 128 + wave(x + y, 80), 128 + wave(y - x, 90) + wave(x, 70)})
        image.pixels.push_back(static_cast<uint8_t>(std::lround(v)));
  return image;
}

struct Difference {
  double mean = 1e9;
  int most = 1 << 20;
};

Difference difference(const Image& a, const Image& b) {
  if (a.height != b.height || a.width != b.width || a.pixels.size() != b.pixels.size()) return {};
  Difference d{0, 0};
  for (size_t i = 0; i < a.pixels.size(); ++i) {
    const int each = std::abs(a.pixels[i] - b.pixels[i]);
    d.mean += each / static_cast<double>(a.pixels.size());
    d.most = std::max(d.most, each);
  }
  return d;
}

Image image_of(const JpegPixels& pixels) {
  if (!pixels.rgb) return {};
  return {pixels.height, pixels.width, 3, {pixels.rgb.get(), pixels.rgb.get() + pixels.height * pixels.width * 3}};
}

Image processor(const std::string& file) { return decode_image(bytes_in(file), "picture"); }

/// Photographs of many sizes and samplings.
std::vector<std::string> various(int64_t count) {
  std::vector<std::string> files;
  for (int64_t i = 0; i < count; ++i) {
    const int across = i % 3 > 0 ? 2 : 1, down = i % 3 > 1 ? 2 : 1;
    files.push_back(make_jpeg(waves(130 + 37 * i % 311, 140 + 53 * i % 277), {.across = across, .down = down}));
  }
  return files;
}

TEST_F(JpegEngines, DecodeAsTheProcessorDoes) {
  for (const auto& [height, width] : {std::pair(375, 500), {500, 333}, {64, 64}, {129, 255}, {257, 131}})
    for (const auto& [across, down] : {std::pair(1, 1), {2, 1}, {2, 2}})
      for (const unsigned restart : {0u, 7u}) {
        const std::string file = make_jpeg(waves(height, width), {.across = across, .down = down, .restart = restart});
        const JpegPixels pixels = pixels_of(file);
        const std::string what = fmt::format("{} x {} at {} x {}, restart {}", height, width, across, down, restart);
        EXPECT_TRUE(pixels.rgb || restart > 0 || height < 128) << what << ": not decoded by the engine";
        if (!pixels.rgb) continue;
        const Difference d = difference(image_of(pixels), processor(file));
        EXPECT_LT(d.mean, 1) << what;
        EXPECT_LE(d.most, 8) << what;
      }
}

/// With steps of chroma, which are smoothed by every decoder in its own way.
TEST_F(JpegEngines, DecodePhotographsAsTheProcessorDoes) {
  ERMOE_REQUIRE_TEST_DATA(path, "caltech_10.tar");
  const TarReader tar(path);
  int64_t decoded = 0;
  double mean = 0;
  for (const TarEntry& entry : tar.entries()) {
    if (!entry.name.ends_with(".jpg")) continue;
    const std::string file = tar.read(entry);
    const JpegPixels pixels = pixels_of(file);
    if (!pixels.rgb) continue;
    ++decoded;
    const auto plain = find_plain_jpeg(bytes_in(file));
    if (plain->orientation != 1) continue;
    const Difference d = difference(image_of(pixels), processor(file));
    EXPECT_LT(d.mean, 2) << entry.name;
    mean = std::max(mean, d.mean);
  }
  EXPECT_GT(decoded, 0);
  fmt::print("{} photographs by {}: they differ by at most {:.3f} of 255 in the mean\n", decoded, engine->name(), mean);
}

TEST_F(JpegEngines, WhateverTheFileThePictureIsThere) {
  for (const auto& [height, width] : {std::pair(1, 1), {1, 200}, {200, 1}, {7, 5}, {15, 17}, {33, 47}, {63, 90}}) {
    const std::string file = make_jpeg(waves(height, width), {.across = 2, .down = 2});
    const Difference d = difference(FileAhead(file, *engine).image("picture"), processor(file));
    EXPECT_LT(d.mean, 1) << height << " x " << width;
  }
  for (const JpegKind kind : {JpegKind::progressive, JpegKind::grey, JpegKind::rgb, JpegKind::cmyk, JpegKind::adobe_cmyk}) {
    const std::string file = make_jpeg(waves(150, 170), {.kind = kind});
    EXPECT_EQ(FileAhead(file, *engine).image("picture"), processor(file));
  }
  for (int orientation = 1; orientation <= 8; ++orientation) {
    const std::string file = make_jpeg(waves(150, 170), {.exif = exif_block(orientation, false)});
    EXPECT_LT(difference(FileAhead(file, *engine).image("picture"), processor(file)).mean, 1) << orientation;
  }
}

TEST_F(JpegEngines, ManyThreadsGetEachTheirOwn) {
  const std::vector<std::string> files = various(60);
  std::vector<Image> expected;
  for (const std::string& file : files) expected.push_back(processor(file));
  std::atomic<int64_t> wrong = 0, missing = 0;
  const auto work = [&](size_t first) {
    std::vector<FileAhead> ahead;
    for (size_t k = 0; k < 3 * files.size(); ++k) {
      if (k % 8 == 0) ahead.clear();
      const size_t i = (first + k) % files.size();
      ahead.emplace_back(files[i], *engine);
      if (k % 8 != 7) continue;
      for (size_t j = 0; j < 8; ++j) {
        const Image got = ahead[j].image("picture");
        const size_t of = (first + k - 7 + j) % files.size();
        missing += got.pixels.empty();
        wrong += difference(got, expected[of]).mean >= 1;
      }
    }
  };
  {
    std::vector<std::jthread> threads;
    for (size_t t = 0; t < 16; ++t) threads.emplace_back(work, 5 * t);
  }
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(missing, 0);
  EXPECT_EQ(engine->take_fault(), "");
}

/// Damaged data in batches with sound files: any answer, but an answer, and the others' pictures stay theirs.
TEST_F(JpegEngines, DamageStaysWithItsFile) {
  std::mt19937 random(3);
  const std::string sound = make_jpeg(waves(200, 220), {.across = 2, .down = 2});
  const Image expected = processor(sound);
  const size_t data = sound.find("\xff\xda") + 14;
  int64_t undecoded = 0;
  for (int round = 0; round < 40; ++round) {
    std::vector<std::future<JpegPixels>> answers;
    std::vector<bool> damaged;
    for (int i = 0; i < 8; ++i) {
      std::string file = sound;
      damaged.push_back(i % 4 == 3);
      for (int change = 0; change < 5 && damaged.back(); ++change) {
        const size_t at = data + random() % (file.size() - 2 - data);
        if (file[at] != '\xff' && file[at - 1] != '\xff') file[at] = static_cast<char>(random() % 255);
      }
      answers.push_back(engine->start(std::make_shared<const std::string>(file), 200, 220));
    }
    for (size_t i = 0; i < answers.size(); ++i) {
      ASSERT_EQ(answers[i].wait_for(std::chrono::seconds(30)), std::future_status::ready);
      const JpegPixels pixels = answers[i].get();
      undecoded += !pixels.rgb;
      EXPECT_TRUE(damaged[i] || difference(image_of(pixels), expected).mean < 1) << i;
    }
  }
  EXPECT_EQ(engine->take_fault(), "");
  fmt::print("{} of 80 damaged files were refused by {}\n", undecoded, engine->name());
}

TEST_F(JpegEngines, AFileOfAnotherSizeThanAnnouncedIsNotDecoded) {
  const auto file = std::make_shared<const std::string>(make_jpeg(waves(200, 220)));
  EXPECT_FALSE(engine->start(file, 200, 219).get().rgb);
  EXPECT_FALSE(engine->start(file, 30000, 30000).get().rgb);
  EXPECT_TRUE(engine->start(file, 200, 220).get().rgb);
}

TEST_F(JpegEngines, GoWithoutLeavingAnybodyWaiting) {
  const auto file = std::make_shared<const std::string>(make_jpeg(waves(375, 500)));
  const Image expected = processor(*file);
  std::vector<std::future<JpegPixels>> answers;
  for (int i = 0; i < 500; ++i) answers.push_back(engine->start(file, 375, 500));
  const JpegPixels first = answers[0].get();
  engine.reset();
  for (size_t i = 1; i < answers.size(); ++i) ASSERT_EQ(answers[i].wait_for(std::chrono::seconds(0)), std::future_status::ready) << i;
  EXPECT_LT(difference(image_of(first), expected).mean, 1);  // outlives the engine
}

/// More pictures than there is memory for, by one who takes them in order.
TEST_F(JpegEngines, MemoryForPixelsIsBoundedAndNobodyWaitsForEver) {
  const auto file = std::make_shared<const std::string>(make_jpeg(waves(2000, 3000), {.across = 2, .down = 2}));
  std::vector<std::future<JpegPixels>> answers;
  for (int i = 0; i < 90; ++i) answers.push_back(engine->start(file, 2000, 3000));  // 1.5 GiB
  for (auto& answer : answers) {
    ASSERT_EQ(answer.wait_for(std::chrono::seconds(30)), std::future_status::ready);
    EXPECT_TRUE(answer.get().rgb);
  }
}

TEST_F(JpegEngines, HowFast) {
  const auto file = std::make_shared<const std::string>(make_jpeg(waves(375, 500), {.across = 2, .down = 2}));
  constexpr int files = 6000, ahead = 128;
  std::deque<std::future<JpegPixels>> answers;
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < files; ++i) {
    answers.push_back(engine->start(file, 375, 500));
    if (std::ssize(answers) < ahead) continue;
    ASSERT_TRUE(answers.front().get().rgb);
    answers.pop_front();
  }
  for (auto& answer : answers) ASSERT_TRUE(answer.get().rgb);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  fmt::print("{:.0f} pictures of 500 x 375 a second by {}\n", files / seconds, engine->name());
}

}  // namespace
}  // namespace ermoe::testing
