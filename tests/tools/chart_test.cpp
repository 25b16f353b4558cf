// The canvas: what it draws lands where it should, nothing writes beyond the border, colours and letters differ.
#include "tools/chart.h"

#include "core/error.h"
#include "tools/font.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

namespace ermoe {
namespace {

int64_t count(const Canvas& canvas, Color color) {
  int64_t n = 0;
  for (int64_t y = 0; y < canvas.height(); ++y) {
    for (int64_t x = 0; x < canvas.width(); ++x) n += canvas.at(x, y) == color;
  }
  return n;
}

constexpr Color kRed{255, 0, 0};

TEST(Canvas, FillsAndClips) {
  Canvas canvas(10, 6);
  canvas.fill({2, 1, 3, 2}, kRed);
  EXPECT_EQ(count(canvas, kRed), 6);
  EXPECT_EQ(canvas.at(2, 1), kRed);
  EXPECT_EQ(canvas.at(4, 2), kRed);
  EXPECT_EQ(canvas.at(5, 2), kWhite);
  for (const Rect outside : {Rect{-5, -5, 5, 5}, Rect{10, 0, 5, 5}, Rect{0, 6, 3, 3}, Rect{3, 3, -2, 4}, Rect{-100, -100, 50, 500}}) {
    canvas.fill(outside, kBlack);
  }
  EXPECT_EQ(count(canvas, kBlack), 0);
  canvas.fill({-3, -3, 100, 100}, kBlack);
  EXPECT_EQ(count(canvas, kBlack), 60);
}

TEST(Canvas, FramesAndTints) {
  Canvas canvas(8, 8);
  canvas.frame({1, 1, 6, 5}, kRed, 2);
  EXPECT_EQ(count(canvas, kRed), 6 * 5 - 2 * 1);
  canvas.tint({0, 0, 1, 1}, kBlack, 0.5);
  EXPECT_EQ(canvas.at(0, 0), (Color{128, 128, 128}));
  canvas.tint({0, 7, 1, 1}, kBlack, 0);
  EXPECT_EQ(canvas.at(0, 7), kWhite);
}

TEST(Canvas, BlitsEnlargedImages) {
  const Image grey{.height = 1, .width = 2, .channels = 1, .pixels = {0, 100}};
  Canvas canvas(10, 10);
  canvas.blit(1, 2, grey, 3);
  EXPECT_EQ(count(canvas, kBlack), 9);
  EXPECT_EQ(canvas.at(1, 2), kBlack);
  EXPECT_EQ(canvas.at(4, 4), (Color{100, 100, 100}));
  const Image rgb{.height = 1, .width = 1, .channels = 3, .pixels = {1, 2, 3}};
  canvas.blit(9, 9, rgb, 4);
  EXPECT_EQ(canvas.at(9, 9), (Color{1, 2, 3}));
  EXPECT_THROW(canvas.blit(0, 0, {.height = 2, .width = 2, .channels = 3, .pixels = {1}}), Error);
  EXPECT_THROW(canvas.blit(0, 0, {.height = 1, .width = 1, .channels = 2, .pixels = {1, 2}}), Error);
}

TEST(Canvas, RefusesSizesThatMakeNoPicture) {
  EXPECT_THROW(Canvas(0, 5), Error);
  EXPECT_THROW(Canvas(5, -1), Error);
  EXPECT_THROW(Canvas(int64_t{1} << 40, 1), Error);
}

TEST(Canvas, DrawsText) {
  Canvas canvas(40, 30);
  canvas.text(0, 0, "I", kBlack);
  for (int64_t y = 0; y < 7; ++y) EXPECT_EQ(canvas.at(2, y), kBlack) << y;
  EXPECT_EQ(canvas.at(2, 7), kWhite);
  const int64_t single = count(canvas, kBlack);
  Canvas large(40, 30);
  large.text(0, 0, "I", kBlack, 2);
  EXPECT_EQ(count(large, kBlack), 4 * single);
  Canvas lines(40, 30);
  lines.text(0, 0, "I\nI", kBlack);
  EXPECT_EQ(count(lines, kBlack), 2 * single);
  EXPECT_EQ(text_width("ab\nabc"), 17);
  EXPECT_EQ(text_width(""), 0);
  EXPECT_EQ(text_height("a\nb", 2), 36);
}

TEST(Font, EveryCharacterHasItsOwnShapeInsideTheCell) {
  std::set<std::array<uint8_t, kGlyphHeight>> shapes;
  for (char c = ' '; c <= '~'; ++c) {
    EXPECT_TRUE(shapes.insert(glyph(c)).second) << c;
    for (const uint8_t row : glyph(c)) EXPECT_LT(row, 32) << c;
  }
  EXPECT_EQ(glyph('\n'), glyph('?'));
  EXPECT_EQ(glyph('\xff'), glyph('?'));
}

TEST(Palette, ColoursAreApart) {
  EXPECT_EQ(palette().size(), 12u);
  for (int64_t i = 0; i < 24; ++i) {
    for (int64_t j = 0; j < i; ++j) {
      const Color a = palette_color(i), b = palette_color(j);
      const double distance = std::hypot(a.r - b.r, a.g - b.g, a.b - b.b);
      EXPECT_GT(distance, i < 12 ? 55 : 10) << i << " and " << j;
    }
  }
  EXPECT_EQ(palette_color(3), palette()[3]);
  EXPECT_EQ(contrasting(kWhite), kBlack);
  EXPECT_EQ(contrasting(kBlack), kWhite);
}

}  // namespace
}  // namespace ermoe
