// Crop, flip, normalisation and erasing, against a search over everything that they may produce.
#include "ops/augment.h"

#include "tests/bench.h"
#include "tests/gpu_bench.h"
#include "tests/ops/expect_error.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <map>
#include <tuple>

namespace ermoe::testing {
namespace {

const Normalisation grey{{0.3}, {0.25}};
const Normalisation colour{{0.49, 0.48, 0.45}, {0.25, 0.24, 0.26}};

const Normalisation& normalisation_of(int64_t channels) { return channels == 1 ? grey : colour; }

/// `batch` copies of one image, or different images.
enum class Images { same, different };

Tensor random_pixels(TestBench& bench, int64_t batch, int64_t side, int64_t channels, Images images) {
  Tensor t = bench.ctx.empty({batch, side, side, channels}, DType::u8);
  const int64_t size = side * side * channels;
  for (int64_t i = 0; i < t.numel(); ++i) {
    const auto index = static_cast<uint64_t>(images == Images::same ? i % size : i);
    t.data<uint8_t>()[i] = static_cast<uint8_t>(philox(RngKey{77}, index).x[0] >> 24);
  }
  return t;
}

/// Output pixel by the definition, for a crop whose corner is (top, left) of the padded image.
double oracle(const Tensor& pixels, int64_t b, int64_t c, int64_t y, int64_t x, int64_t padding, int64_t top, int64_t left, bool mirrored) {
  const int64_t side = pixels.shape()[1], channels = pixels.shape()[3];
  const int64_t row = top + y - padding, column = left + (mirrored ? side - 1 - x : x) - padding;
  const bool inside = row >= 0 && row < side && column >= 0 && column < side;
  const double value = inside ? pixels.data<uint8_t>()[((b * side + row) * side + column) * channels + c] : 0;
  const Normalisation& n = normalisation_of(channels);
  return (value / 255 - n.mean[static_cast<size_t>(c)]) / n.deviation[static_cast<size_t>(c)];
}

bool matches(const Tensor& pixels, const Tensor& out, int64_t b, int64_t padding, int64_t top, int64_t left, bool mirrored) {
  const int64_t side = pixels.shape()[1], channels = pixels.shape()[3];
  const float* value = out.at(b).data<float>();
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t y = 0; y < side; ++y)
      for (int64_t x = 0; x < side; ++x)
        if (*value++ != static_cast<float>(oracle(pixels, b, c, y, x, padding, top, left, mirrored))) return false;
  return true;
}

TEST(Augment, OnlyNormalisesByDefault) {
  TestBench bench;
  for (int64_t channels : {1, 3})
    for (int64_t side : {1, 7, 28}) {
      const Tensor pixels = random_pixels(bench, 5, side, channels, Images::different);
      const Tensor out = augment(bench.ctx, pixels, {}, normalisation_of(channels), RngKey{1});
      EXPECT_EQ(out.dtype(), DType::f32);
      EXPECT_EQ(out.shape(), (Shape{5, channels, side, side}));
      for (int64_t b = 0; b < 5; ++b) EXPECT_TRUE(matches(pixels, out, b, 0, 0, 0, false)) << "image " << b << ", side " << side;
    }
}

TEST(Augment, EveryCropAndMirrorImageOccursEquallyOften) {
  TestBench bench;
  for (int64_t channels : {1, 3}) {
    const int64_t batch = 4000, padding = 2, side = 6;
    const Tensor pixels = random_pixels(bench, batch, side, channels, Images::same);
    const Tensor out = augment(bench.ctx, pixels, {.crop_padding = padding, .flip = true}, normalisation_of(channels), RngKey{2});
    std::map<std::tuple<int64_t, int64_t, bool>, int> found;
    for (int64_t b = 0; b < batch; ++b) {
      int hits = 0;
      for (int64_t top = 0; top <= 2 * padding; ++top)
        for (int64_t left = 0; left <= 2 * padding; ++left)
          for (bool mirrored : {false, true})
            if (matches(pixels, out, b, padding, top, left, mirrored)) ++found[{top, left, mirrored}], ++hits;
      ASSERT_EQ(hits, 1) << "image " << b << " is no crop, or several";
    }
    EXPECT_EQ(found.size(), 50u);
    double chi = 0;  // 49 degrees of freedom: mean 49, deviation 9.9; the bound is five deviations up
    for (const auto& [draw, count] : found) chi += (count - batch / 50.0) * (count - batch / 50.0) / (batch / 50.0);
    EXPECT_LT(chi, 99);
  }
}

TEST(Augment, ACropMayMissTheImage) {
  TestBench bench;
  const Tensor pixels = random_pixels(bench, 200, 3, 3, Images::same);
  const Tensor out = augment(bench.ctx, pixels, {.crop_padding = 10, .flip = true}, colour, RngKey{3});
  int black = 0;
  for (int64_t b = 0; b < 200; ++b) {
    bool found = false;
    for (int64_t top = 0; top <= 20 && !found; ++top)
      for (int64_t left = 0; left <= 20 && !found; ++left)
        for (bool mirrored : {false, true}) found = found || matches(pixels, out, b, 10, top, left, mirrored);
    EXPECT_TRUE(found) << "image " << b;
    black += matches(pixels, out, b, 10, 0, 0, false);
  }
  EXPECT_GT(black, 0);
}

/// The smallest rectangle that holds the zeros of an image; its area and whether all channels are zero all over it.
struct Zeros {
  int64_t top = 1 << 20, left = 1 << 20, bottom = -1, right = -1, count = 0;

  explicit Zeros(const Tensor& image /* (channels, S, S) */) {
    const int64_t side = image.shape()[1];
    const float* value = image.data<float>();
    for (int64_t c = 0; c < image.shape()[0]; ++c)
      for (int64_t y = 0; y < side; ++y)
        for (int64_t x = 0; x < side; ++x) {
          if (*value++ != 0) continue;
          top = std::min(top, y), left = std::min(left, x), bottom = std::max(bottom, y), right = std::max(right, x);
          ++count;
        }
  }
  int64_t height() const { return bottom - top + 1; }
  int64_t width() const { return right - left + 1; }
};

TEST(Augment, ErasesOneRectangleOfTheStatedSizes) {
  TestBench bench;
  for (int64_t channels : {1, 3}) {
    const int64_t batch = 2000, side = 32;
    const double probability = 0.3, pixels_of_image = side * side;
    const Tensor pixels = random_pixels(bench, batch, side, channels, Images::same);
    const Tensor plain = augment(bench.ctx, pixels, {}, normalisation_of(channels), RngKey{4});
    const Tensor out = augment(bench.ctx, pixels, {.erasing = probability}, normalisation_of(channels), RngKey{4});
    int64_t erased = 0;
    double area = 0, row = 0;
    for (int64_t b = 0; b < batch; ++b) {
      const Zeros zeros(out.at(b));
      const Tensor before = plain.at(b), after = out.at(b);
      const auto erased_or_kept = [](float now, float was) { return now == 0 || now == was; };
      ASSERT_TRUE(std::equal(after.span<float>().begin(), after.span<float>().end(), before.span<float>().begin(), erased_or_kept));
      if (zeros.count == 0) continue;
      ++erased;
      ASSERT_EQ(zeros.count, zeros.height() * zeros.width() * channels) << "not a rectangle of all channels";
      const auto h = static_cast<double>(zeros.height()), w = static_cast<double>(zeros.width());
      // A side is rounded by at most half a pixel.
      EXPECT_GE((h + 0.5) * (w + 0.5), 0.02 * pixels_of_image);
      EXPECT_LE((h - 0.5) * (w - 0.5), 0.33 * pixels_of_image);
      EXPECT_GE((h + 0.5) / (w - 0.5), 0.3);
      EXPECT_LE((h - 0.5) / (w + 0.5), 3.3);
      area += h * w / pixels_of_image;
      row += (static_cast<double>(zeros.top) + h / 2) / side;
    }
    const auto count = static_cast<double>(erased);
    EXPECT_NEAR(count / batch, probability, 5 * std::sqrt(probability * (1 - probability) / batch));
    EXPECT_NEAR(area / count, 0.175, 5 * 0.31 / std::sqrt(12 * count) + 0.01);  // large long ones do not fit: a little below the middle
    EXPECT_NEAR(row / count, 0.5, 5 * 0.29 / std::sqrt(count));
  }
}

TEST(Augment, AnImageDoesNotDependOnTheRestOfTheBatchOrOnThreads) {
  const AugmentSettings settings{.crop_padding = 4, .flip = true, .erasing = 0.5};
  TestBench bench;
  const Tensor pixels = random_pixels(bench, 33, 32, 3, Images::different);
  const int before = omp_get_max_threads();
  std::vector<std::vector<double>> runs;
  for (int threads : {1, 2, 5}) {
    omp_set_num_threads(threads);
    runs.push_back(to_doubles(augment(bench.ctx, pixels, settings, colour, RngKey{5})));
  }
  omp_set_num_threads(before);
  EXPECT_EQ(runs[0], runs[1]);
  EXPECT_EQ(runs[0], runs[2]);
  const std::vector<double> first = to_doubles(augment(bench.ctx, pixels.slice(0, 7), settings, colour, RngKey{5}));
  EXPECT_TRUE(std::equal(first.begin(), first.end(), runs[0].begin()));
  EXPECT_NE(to_doubles(augment(bench.ctx, pixels, settings, colour, RngKey{6})), runs[0]);
}

TEST(Augment, TakesAnEmptyBatch) {
  TestBench bench;
  const Tensor out = augment(bench.ctx, bench.ctx.empty({0, 8, 8, 3}, DType::u8), {.crop_padding = 2, .erasing = 1}, colour, RngKey{});
  EXPECT_EQ(out.shape(), (Shape{0, 3, 8, 8}));
}

#if defined(ERMOE_WITH_CUDA)
/// Bit for bit: both read the same table by the same draws.
void expect_gpu_agrees() {
  TestBench cpu;
  GpuBench gpu;
  for (int64_t channels : {1, 3})
    for (int64_t side : {1, 7, 28, 97}) {
      const Tensor pixels = random_pixels(cpu, 19, side, channels, Images::different);
      for (const AugmentSettings& settings : {AugmentSettings{}, AugmentSettings{.crop_padding = 4, .flip = true, .erasing = 0.5}})
        EXPECT_EQ(to_vector<float>(augment(gpu.ctx, to_device(gpu.ctx, pixels), settings, normalisation_of(channels), RngKey{9})),
                  to_vector<float>(augment(cpu.ctx, pixels, settings, normalisation_of(channels), RngKey{9})))
            << "side " << side;
    }
  const Tensor none = gpu.ctx.empty({0, 8, 8, 3}, DType::u8);
  EXPECT_EQ(augment(gpu.ctx, none, {.randaugment_n = 2}, colour, RngKey{}).shape(), (Shape{0, 3, 8, 8}));
}

TEST(Augment, OnAGpuGivesTheSameBits) { ERMOE_NEEDS_GPU(expect_gpu_agrees()); }
#endif

TEST(Augment, WrongInputsAreRefused) {
  TestBench bench;
  const auto run = [&](const Shape& shape, DType dtype, const AugmentSettings& settings, const Normalisation& n) {
    return [&bench, shape, dtype, settings, n] { augment(bench.ctx, bench.ctx.empty(shape, dtype), settings, n, RngKey{}); };
  };
  expect_error(run({2, 4, 5, 3}, DType::u8, {}, colour), {"[augment]", "(2, 4, 5, 3)"});
  expect_error(run({2, 4, 4, 2}, DType::u8, {}, colour), {"[augment]", "(2, 4, 4, 2)"});
  expect_error(run({2, 4, 4}, DType::u8, {}, colour), {"[augment]", "(2, 4, 4)"});
  expect_error(run({2, 4, 4, 3}, DType::f32, {}, colour), {"[augment]", "f32"});
  expect_error([&] { augment(bench.ctx, Tensor(), {}, grey, RngKey{}); }, {"[augment]"});
  expect_error(run({2, 4, 4, 3}, DType::u8, {}, grey), {"[augment]", "1 means", "3 channels"});
  expect_error(run({2, 4, 4, 1}, DType::u8, {}, {{0.5}, {0.0}}), {"[augment]", "channel 0", "deviation 0"});
  expect_error(run({2, 4, 4, 1}, DType::u8, {}, {{std::nan("")}, {1}}), {"[augment]", "nan"});
  expect_error(run({2, 4, 4, 1}, DType::u8, {.crop_padding = -1}, grey), {"[augment]", "-1"});
  expect_error(run({2, 4, 4, 1}, DType::u8, {.crop_padding = INT64_MAX}, grey), {"[augment]", "crop padding"});
  expect_error(run({2, 4, 4, 1}, DType::u8, {.randaugment_n = -2}, grey), {"[augment]", "-2"});
  expect_error(run({2, 4, 4, 1}, DType::u8, {.randaugment_n = 1, .randaugment_m = 11}, grey), {"[augment]", "11"});
  for (double p : {-0.1, 1.1, std::nan("")}) expect_error(run({2, 4, 4, 1}, DType::u8, {.erasing = p}, grey), {"[augment]", "erasing"});
}

}  // namespace
}  // namespace ermoe::testing
