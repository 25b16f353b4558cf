#include "tools/chart.h"

#include "core/error.h"
#include "tools/font.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace ermoe {
namespace {

constexpr int64_t kAdvance = kGlyphWidth + 1;
constexpr int64_t kLineHeight = kGlyphHeight + 2;

constexpr std::array<Color, 12> kPalette = {{
    {62, 116, 196},   // blue
    {236, 128, 32},   // orange
    {52, 158, 82},    // green
    {206, 50, 58},    // red
    {136, 84, 190},   // violet
    {134, 90, 62},    // brown
    {232, 118, 186},  // pink
    {44, 184, 194},   // teal
    {240, 204, 60},   // yellow
    {120, 126, 134},  // grey
    {164, 214, 92},   // lime
    {30, 52, 104},    // navy
}};

uint8_t mix(uint8_t below, uint8_t above, double share) {
  return static_cast<uint8_t>(std::lround(below + (static_cast<double>(above) - below) * share));
}

}  // namespace

std::span<const Color> palette() { return kPalette; }

Color palette_color(int64_t id) {
  if (id < 0) return {200, 200, 200};
  const Color c = kPalette[static_cast<size_t>(id) % kPalette.size()];
  const double share = 1.0 - std::pow(0.7, static_cast<double>(id / static_cast<int64_t>(kPalette.size())));
  return {mix(c.r, 0, share), mix(c.g, 0, share), mix(c.b, 0, share)};
}

Color contrasting(Color background) {
  const double luma = 0.299 * background.r + 0.587 * background.g + 0.114 * background.b;
  return luma > 140 ? kBlack : kWhite;
}

Canvas::Canvas(int64_t width, int64_t height, Color background) {
  constexpr int64_t most = 32768;
  check(width >= 1 && height >= 1 && width <= most && height <= most, "[chart] a canvas of {} x {} pixels; 1 to {} a side", width, height,
        most);
  image_ = {.height = height, .width = width, .channels = 3, .pixels = std::vector<uint8_t>(static_cast<size_t>(width * height * 3))};
  fill({0, 0, width, height}, background);
}

Color Canvas::at(int64_t x, int64_t y) const {
  check(x >= 0 && y >= 0 && x < width() && y < height(), "[chart] pixel ({}, {}) of {} x {}", x, y, width(), height());
  const uint8_t* p = &image_.pixels[static_cast<size_t>((y * width() + x) * 3)];
  return {p[0], p[1], p[2]};
}

Rect Canvas::clip(Rect area) const {
  const int64_t left = std::clamp<int64_t>(area.x, 0, width()), top = std::clamp<int64_t>(area.y, 0, height());
  const int64_t right = std::clamp<int64_t>(area.x + std::max<int64_t>(area.width, 0), left, width());
  const int64_t bottom = std::clamp<int64_t>(area.y + std::max<int64_t>(area.height, 0), top, height());
  return {left, top, right - left, bottom - top};
}

void Canvas::fill(Rect area, Color color) { tint(area, color, 1.0); }

void Canvas::tint(Rect area, Color color, double share) {
  share = std::clamp(share, 0.0, 1.0);
  const Rect r = clip(area);
  for (int64_t y = r.y; y < r.y + r.height; ++y) {
    uint8_t* p = &image_.pixels[static_cast<size_t>((y * width() + r.x) * 3)];
    for (int64_t x = 0; x < r.width; ++x, p += 3) {
      p[0] = mix(p[0], color.r, share);
      p[1] = mix(p[1], color.g, share);
      p[2] = mix(p[2], color.b, share);
    }
  }
}

void Canvas::frame(Rect a, Color color, int64_t thickness) {
  const int64_t t = std::min({thickness, a.width, a.height});
  fill({a.x, a.y, a.width, t}, color);
  fill({a.x, a.y + a.height - t, a.width, t}, color);
  fill({a.x, a.y, t, a.height}, color);
  fill({a.x + a.width - t, a.y, t, a.height}, color);
}

void Canvas::blit(int64_t x, int64_t y, const Image& source, int64_t scale) {
  check(source.channels == 1 || source.channels == 3, "[chart] an image of {} channels", source.channels);
  check(std::ssize(source.pixels) == source.height * source.width * source.channels, "[chart] an image of {} x {} with {} bytes",
        source.width, source.height, source.pixels.size());
  for (int64_t row = 0; row < source.height; ++row) {
    for (int64_t column = 0; column < source.width; ++column) {
      const uint8_t* p = &source.pixels[static_cast<size_t>((row * source.width + column) * source.channels)];
      const Color color = source.channels == 3 ? Color{p[0], p[1], p[2]} : Color{p[0], p[0], p[0]};
      fill({x + column * scale, y + row * scale, scale, scale}, color);
    }
  }
}

void Canvas::text(int64_t x, int64_t y, std::string_view text, Color color, int64_t scale) {
  int64_t pen = x;
  for (const char c : text) {
    if (c == '\n') {
      pen = x;
      y += kLineHeight * scale;
      continue;
    }
    const auto& rows = glyph(c);
    for (int64_t row = 0; row < kGlyphHeight; ++row) {
      for (int64_t column = 0; column < kGlyphWidth; ++column) {
        const bool on = rows[static_cast<size_t>(row)] >> (kGlyphWidth - 1 - column) & 1;
        if (on) fill({pen + column * scale, y + row * scale, scale, scale}, color);
      }
    }
    pen += kAdvance * scale;
  }
}

int64_t text_width(std::string_view text, int64_t scale) {
  int64_t longest = 0;
  for (int64_t line = 0; const char c : text) {
    line = c == '\n' ? 0 : line + 1;
    longest = std::max(longest, line);
  }
  return longest == 0 ? 0 : (longest * kAdvance - 1) * scale;
}

int64_t text_height(std::string_view text, int64_t scale) {
  return (std::count(text.begin(), text.end(), '\n') * kLineHeight + kGlyphHeight) * scale;
}

}  // namespace ermoe
