// The demo's picture: what it shows is where it should be, wrong shapes are refused, odd ones are drawn.
#include "tools/demo_picture.h"

#include "core/error.h"
#include "tools/chart.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>

namespace ermoe {
namespace {

DemoSample sample(int64_t side, int64_t layers, int64_t grid, int32_t expert) {
  return {.image = {.height = side, .width = side, .channels = 1, .pixels = std::vector<uint8_t>(static_cast<size_t>(side * side), 255)},
          .truth = "Coat",
          .guess = "Coat",
          .probability = 0.9,
          .experts = std::vector(static_cast<size_t>(layers), std::vector(static_cast<size_t>(grid * grid), expert))};
}

DemoPicture picture(int64_t side, int64_t layers, int64_t grid, int64_t samples) {
  DemoPicture p{.title = "title", .notes = {"note"}, .grid = grid, .layers = {}, .samples = {}};
  for (int64_t i = 0; i < layers; ++i) p.layers.push_back({.block = 2 * i + 1, .gini = 0.25, .load = {0.5, 0.3, 0.2, 0}});
  for (int64_t i = 0; i < samples; ++i) p.samples.push_back(sample(side, layers, grid, 1));
  return p;
}

/// Pixels of a colour.
int64_t count(const Image& image, std::array<int, 3> rgb) {
  int64_t n = 0;
  for (size_t i = 0; i < image.pixels.size(); i += 3)
    n += image.pixels[i] == rgb[0] && image.pixels[i + 1] == rgb[1] && image.pixels[i + 2] == rgb[2];
  return n;
}

TEST(DemoPicture, TintsAPaneALayer) {
  const Image one = draw(picture(28, 1, 7, 1)), two = draw(picture(28, 2, 7, 1));
  EXPECT_GE(count(one, {255, 255, 255}), 112 * 112);  // the image itself, white
  // A white pane under expert 1's colour: the most frequent colour that is neither paper nor white nor a bar's.
  Canvas swatch(1, 1);
  swatch.tint({0, 0, 1, 1}, palette_color(1), 0.62);
  const Color tinted = swatch.at(0, 0);
  EXPECT_EQ(count(one, {tinted.r, tinted.g, tinted.b}), 112 * 112);
  EXPECT_EQ(count(two, {tinted.r, tinted.g, tinted.b}), 2 * 112 * 112);
}

TEST(DemoPicture, MistakesAreRed) {
  DemoPicture p = picture(28, 2, 7, 2);
  const std::array red{186, 36, 44};
  EXPECT_EQ(count(draw(p), red), 0);
  p.samples[1].guess = "Shirt";
  EXPECT_GT(count(draw(p), red), 100);
}

TEST(DemoPicture, DrawsWhateverAModelHas) {
  for (const int64_t side : {1, 8, 28, 112, 113, 224, 500}) {
    for (const int64_t layers : {0, 1, 3}) {
      const Image image = draw(picture(side, layers, side < 7 ? 1 : 7, 5));
      EXPECT_GE(image.width, 796) << side;
      EXPECT_LE(image.width, 1000) << side;
    }
  }
  DemoPicture many = picture(28, 1, 7, 3);
  many.layers[0].load.assign(600, 1.0 / 600);
  many.samples[0].experts[0][3] = -1;
  many.samples[1].truth = many.samples[1].guess = std::string(400, 'w');
  EXPECT_EQ(draw(many).width, draw(picture(28, 1, 7, 3)).width);
  EXPECT_GT(draw(picture(28, 2, 7, 0)).height, 0);
}

TEST(DemoPicture, RefusesSamplesThatDoNotFit) {
  DemoPicture p = picture(28, 2, 7, 1);
  p.samples[0].experts.pop_back();
  EXPECT_THROW(draw(p), Error);
  p = picture(28, 2, 7, 1);
  p.samples[0].experts[1].pop_back();
  EXPECT_THROW(draw(p), Error);
}

}  // namespace
}  // namespace ermoe
