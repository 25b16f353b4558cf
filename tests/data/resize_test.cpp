// Resizing and cropping, by properties that any correct resampling has.
#include "data/resize.h"

#include "core/error.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <numeric>
#include <random>

namespace ermoe::testing {
namespace {

constexpr ResizeFilter filters[] = {ResizeFilter::bilinear, ResizeFilter::bicubic};

Image noise(int64_t height, int64_t width, int64_t channels) {
  Image image{height, width, channels, std::vector<uint8_t>(static_cast<size_t>(height * width * channels))};
  std::mt19937 random(7);
  for (uint8_t& v : image.pixels) v = static_cast<uint8_t>(random() & 255);
  return image;
}

double mean(const Image& image) {
  return std::accumulate(image.pixels.begin(), image.pixels.end(), 0.0) / static_cast<double>(image.pixels.size());
}

Image transposed(const Image& image) {
  Image out{image.width, image.height, image.channels, std::vector<uint8_t>(image.pixels.size())};
  for (int64_t y = 0; y < image.height; ++y)
    for (int64_t x = 0; x < image.width; ++x)
      for (int64_t c = 0; c < image.channels; ++c)
        out.pixels[(x * image.height + y) * image.channels + c] = image.pixels[(y * image.width + x) * image.channels + c];
  return out;
}

TEST(Resize, KeepsAConstantImage) {
  for (const ResizeFilter filter : filters)
    for (const auto& [h, w] : {std::pair{1, 1}, {5, 9}, {17, 13}, {40, 61}, {224, 3}})
      for (const uint8_t value : {0, 1, 127, 255}) {
        const Image out = resize({17, 13, 3, std::vector<uint8_t>(17 * 13 * 3, value)}, h, w, filter);
        EXPECT_EQ(out, (Image{h, w, 3, std::vector<uint8_t>(static_cast<size_t>(h * w * 3), value)}));
      }
}

TEST(Resize, AtEqualSizeIsIdentity) {
  for (const ResizeFilter filter : filters) {
    const Image image = noise(31, 17, 3);
    EXPECT_EQ(resize(image, 31, 17, filter), image);
    // The weights themselves, not only the short cut: one side changes, the other is kept.
    EXPECT_EQ(resize(resize(image, 31, 40, filter), 31, 40, filter), resize(image, 31, 40, filter));
  }
}

TEST(Resize, BilinearHalvingWeighsFourNeighbours) {
  // A triangle of half-width 2 at the middle between two pixels has weights 1 3 3 1 over 8.
  const Image image{1, 8, 1, {0, 0, 0, 80, 0, 0, 0, 0}};
  EXPECT_EQ(resize(image, 1, 4, ResizeFilter::bilinear).pixels, (std::vector<uint8_t>{0, 30, 10, 0}));
}

TEST(Resize, DoublingBilinearInterpolates) {
  const Image image{1, 2, 1, {0, 200}};
  EXPECT_EQ(resize(image, 1, 4, ResizeFilter::bilinear).pixels, (std::vector<uint8_t>{0, 50, 150, 200}));
}

TEST(Resize, ShrinkingKeepsTheMean) {
  const Image image = noise(240, 360, 3);
  for (const ResizeFilter filter : filters) {
    // Every source pixel counts nearly equally; the rest is rounding and the borders. Without antialiasing noise would stay noise.
    const Image out = resize(image, 20, 30, filter);
    EXPECT_NEAR(mean(out), mean(image), 1.0);
    double variance = 0;
    for (const uint8_t v : out.pixels) variance += (v - mean(out)) * (v - mean(out)) / static_cast<double>(out.pixels.size());
    EXPECT_LT(std::sqrt(variance), 74.0 / 6);
  }
}

TEST(Resize, BicubicReproducesARamp) {
  Image ramp{1, 40, 1, std::vector<uint8_t>(40)};
  for (size_t x = 0; x < 40; ++x) ramp.pixels[x] = static_cast<uint8_t>(6 * x);
  const Image out = resize(ramp, 1, 80, ResizeFilter::bicubic);
  for (int x = 8; x < 72; ++x) EXPECT_LE(std::abs(out.pixels[static_cast<size_t>(x)] - (6 * ((x + 0.5) / 2 - 0.5))), 0.5) << x;
}

TEST(Resize, TreatsChannelsAndAxesAlike) {
  const Image grey = noise(23, 37, 1);
  for (const ResizeFilter filter : filters) {
    const Image rgb = resize(to_rgb(grey), 11, 50, filter);
    EXPECT_EQ(rgb, to_rgb(resize(grey, 11, 50, filter)));
    EXPECT_EQ(resize(grey, 23, 50, filter), transposed(resize(transposed(grey), 50, 23, filter)));
  }
}

TEST(Resize, ShorterSideKeepsProportions) {
  const Image wide = resize_shorter_side(noise(100, 151, 3), 50);
  EXPECT_EQ(wide.height, 50);
  EXPECT_EQ(wide.width, 75);
  const Image tall = resize_shorter_side(noise(151, 100, 3), 50);
  EXPECT_EQ(tall.height, 75);
  EXPECT_EQ(tall.width, 50);
}

TEST(Resize, RefusesSenselessSizes) {
  const Image image = noise(4, 4, 3);
  EXPECT_THROW(resize(image, 0, 4), Error);
  EXPECT_THROW(resize(image, 4, -1), Error);
  EXPECT_THROW(resize({}, 4, 4), Error);
  EXPECT_THROW(resize({4, 4, 3, std::vector<uint8_t>(47)}, 8, 8), Error);
}

TEST(Crop, TakesTheBox) {
  const Image image{3, 4, 1, {0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23}};
  EXPECT_EQ(crop(image, {1, 2, 2, 2}), (Image{2, 2, 1, {12, 13, 22, 23}}));
  EXPECT_EQ(center_crop(image, 1, 2), (Image{1, 2, 1, {11, 12}}));
  EXPECT_EQ(crop(image, {0, 0, 3, 4}), image);
  for (const CropBox& box : {CropBox{0, 0, 4, 4}, {0, 0, 3, 5}, {-1, 0, 2, 2}, {0, 3, 2, 2}, {0, 0, 0, 1}, {INT64_MAX, 0, 1, 1}})
    EXPECT_THROW(crop(image, box), Error) << box.top << " " << box.left << " " << box.height << " " << box.width;
  EXPECT_THROW(center_crop(image, 4, 4), Error);
}

}  // namespace
}  // namespace ermoe::testing
