// A canvas for small pictures in reports and in the demo: rectangles, images enlarged pixel by pixel, tints and text.
// Whatever reaches beyond the border is cut off there. data/encode_png.h writes the result to a file.
#pragma once

#include "data/image.h"

#include <cstdint>
#include <span>
#include <string_view>

namespace ermoe {

struct Color {
  uint8_t r = 0, g = 0, b = 0;
  bool operator==(const Color&) const = default;
};

inline constexpr Color kBlack{0, 0, 0}, kWhite{255, 255, 255};

/// Twelve colours that are told apart side by side, for experts and classes.
std::span<const Color> palette();

/// The colour of expert or class `id`; past the palette's end it repeats, darker each time round.
Color palette_color(int64_t id);

/// Black or white, whichever is read better on `background`.
Color contrasting(Color background);

/// A place in pixels; x to the right, y downwards.
struct Rect {
  int64_t x = 0, y = 0, width = 0, height = 0;
};

class Canvas {
 public:
  /// Throws Error unless both sides are from 1 to 32768 pixels.
  Canvas(int64_t width, int64_t height, Color background = kWhite);

  int64_t width() const { return image_.width; }
  int64_t height() const { return image_.height; }
  const Image& image() const { return image_; }
  /// The pixel inside the canvas.
  Color at(int64_t x, int64_t y) const;

  void fill(Rect area, Color color);
  /// Mixes `share` (0 to 1) of the colour into what is there.
  void tint(Rect area, Color color, double share);
  /// The outline of `area`, `thickness` pixels inwards.
  void frame(Rect area, Color color, int64_t thickness = 1);
  /// Draws an image (RGB or grey), each of its pixels as a square of `scale` pixels.
  void blit(int64_t x, int64_t y, const Image& source, int64_t scale = 1);
  /// Draws text from its top left corner; a newline starts a line below.
  void text(int64_t x, int64_t y, std::string_view text, Color color, int64_t scale = 1);

 private:
  Rect clip(Rect area) const;

  Image image_;
};

/// Pixels that `text` takes on its longest line, and from the top to the bottom of its lines.
int64_t text_width(std::string_view text, int64_t scale = 1);
int64_t text_height(std::string_view text, int64_t scale = 1);

}  // namespace ermoe
