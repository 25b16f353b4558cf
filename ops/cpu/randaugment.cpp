// RandAugment on the CPU: one small function an operation, images spread over the cores. Strengths and formulas are those of
// AutoAugment's published list (Cubuk et al., arXiv 1805.09501), as image libraries compute them, but rounded to nearest.
#include "ops/kernels/randaugment.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <span>

namespace ermoe::cpu {
namespace {

/// One image being changed: pixels (S, S, channels) and scratch memory of the same size.
struct Canvas {
  int64_t side, channels;
  uint8_t* pixels;
  uint8_t* scratch;

  int64_t area() const { return side * side; }
  std::span<uint8_t> values() const { return {pixels, static_cast<size_t>(area() * channels)}; }
};

using ByteTable = std::array<uint8_t, 256>;

/// Replaces every value of channel c by table[value].
void look_up(const Canvas& canvas, int64_t c, const ByteTable& table) {
  for (int64_t i = c; i < canvas.area() * canvas.channels; i += canvas.channels) canvas.pixels[i] = table[canvas.pixels[i]];
}

template <typename Fn>
void map_values(const Canvas& canvas, Fn fn) {
  ByteTable table;
  for (int v = 0; v < 256; ++v) table[static_cast<size_t>(v)] = static_cast<uint8_t>(fn(v));
  for (int64_t c = 0; c < canvas.channels; ++c) look_up(canvas, c, table);
}

std::array<int64_t, 256> histogram(const Canvas& canvas, int64_t c) {
  std::array<int64_t, 256> counts{};
  for (int64_t i = c; i < canvas.area() * canvas.channels; i += canvas.channels) ++counts[canvas.pixels[i]];
  return counts;
}

/// Stretches each channel to 0..255.
void autocontrast(const Canvas& canvas) {
  for (int64_t c = 0; c < canvas.channels; ++c) {
    const auto counts = histogram(canvas, c);
    int low = 0, high = 255;
    while (low < 255 && counts[static_cast<size_t>(low)] == 0) ++low;
    while (high > 0 && counts[static_cast<size_t>(high)] == 0) --high;
    if (low >= high) continue;
    ByteTable table{};
    for (int v = low; v <= high; ++v)
      table[static_cast<size_t>(v)] = static_cast<uint8_t>(((v - low) * 255 + (high - low) / 2) / (high - low));
    look_up(canvas, c, table);
  }
}

/// Makes each channel's histogram as flat as a mapping of values can. The brightest value is left out of the steps: it
/// becomes 255 however frequent it is.
void equalize(const Canvas& canvas) {
  for (int64_t c = 0; c < canvas.channels; ++c) {
    const auto counts = histogram(canvas, c);
    const int64_t brightest = *std::find_if(counts.rbegin(), counts.rend(), [](int64_t n) { return n > 0; });
    const int64_t step = (canvas.area() - brightest) / 255;
    if (step == 0) continue;
    ByteTable table;
    int64_t below_value = step / 2;
    for (size_t v = 0; v < 256; ++v) {
      table[v] = static_cast<uint8_t>(std::min<int64_t>(below_value / step, 255));
      below_value += counts[v];
    }
    look_up(canvas, c, table);
  }
}

/// Clears up to 4 low bits.
void posterize(const Canvas& canvas, double strength) {
  const auto cleared = static_cast<int>(std::lround(4 * std::abs(strength)));
  map_values(canvas, [=](int v) { return v >> cleared << cleared; });
}

/// Inverts values from a threshold on, which is 256 at strength 0 and 0 at 1.
void solarize(const Canvas& canvas, double strength) {
  const auto threshold = static_cast<int>(std::lround(256 * (1 - std::abs(strength))));
  map_values(canvas, [=](int v) { return v >= threshold ? 255 - v : v; });
}

/// Of a blend base + factor (value - base) in 1/65536: 1 leaves the image as it was.
int blend_factor(double strength) { return static_cast<int>(std::lround(65536 * (1 + 0.9 * strength))); }

uint8_t blend(int base, int value, int factor) {
  return static_cast<uint8_t>(std::clamp((base * 65536 + factor * (value - base) + 32768) >> 16, 0, 255));
}

/// ITU-R 601 luma in 1/65536; a grey pixel's own value.
int luma(const uint8_t* pixel, int64_t channels) {
  return channels == 1 ? pixel[0] : (19595 * pixel[0] + 38470 * pixel[1] + 7471 * pixel[2] + 32768) >> 16;
}

void brightness(const Canvas& canvas, double strength) {
  const int factor = blend_factor(strength);
  map_values(canvas, [=](int v) { return blend(0, v, factor); });
}

/// Blends with the mean luma.
void contrast(const Canvas& canvas, double strength) {
  int64_t sum = 0;
  for (int64_t i = 0; i < canvas.area(); ++i) sum += luma(canvas.pixels + i * canvas.channels, canvas.channels);
  const auto mean = static_cast<int>((sum + canvas.area() / 2) / canvas.area());
  const int factor = blend_factor(strength);
  map_values(canvas, [=](int v) { return blend(mean, v, factor); });
}

/// Blends each pixel with its luma.
void color(const Canvas& canvas, double strength) {
  if (canvas.channels == 1) return;
  const int factor = blend_factor(strength);
  for (int64_t i = 0; i < canvas.area(); ++i) {
    uint8_t* pixel = canvas.pixels + i * canvas.channels;
    const int grey = luma(pixel, canvas.channels);
    for (int64_t c = 0; c < canvas.channels; ++c) pixel[c] = blend(grey, pixel[c], factor);
  }
}

/// Blends with the image smoothed by a 3 x 3 kernel of ones, 5 in the middle. The outermost pixels stay.
void sharpness(const Canvas& canvas, double strength) {
  std::ranges::copy(canvas.values(), canvas.scratch);
  const int factor = blend_factor(strength);
  const int64_t row = canvas.side * canvas.channels, step = canvas.channels;
  for (int64_t y = 1; y < canvas.side - 1; ++y)
    for (int64_t i = y * row + step; i < (y + 1) * row - step; ++i) {
      const uint8_t* p = canvas.scratch + i;
      const int around = p[-row - step] + p[-row] + p[-row + step] + p[-step] + p[step] + p[row - step] + p[row] + p[row + step];
      canvas.pixels[i] = blend((around + 5 * p[0] + 6) / 13, p[0], factor);
    }
}

/// Source point of an output point, both measured from the image's corner in pixels: x' = xx x + xy y + x0, y' likewise.
struct AffineMap {
  double xx = 1, xy = 0, x0 = 0, yx = 0, yy = 1, y0 = 0;
};

/// Coordinates are in 2^-32 pixels: exact, and so fine that their rounding cannot be seen.
constexpr int coordinate_bits = 32;
constexpr int weight_bits = 8;
constexpr int64_t one_pixel = int64_t{1} << coordinate_bits;

int64_t fixed(double pixels) { return std::llround(pixels * static_cast<double>(one_pixel)); }

/// Bilinear between the four nearest pixels of the scratch image; (x, y) lies in the image.
void sample(const Canvas& canvas, int64_t x, int64_t y, uint8_t* pixel) {
  constexpr int one = 1 << weight_bits;
  const int64_t last = canvas.side - 1, u = x - one_pixel / 2, v = y - one_pixel / 2;
  const int64_t left = u >> coordinate_bits, top = v >> coordinate_bits;  // -1 within half a pixel of the border
  const auto fraction = [](int64_t at) { return static_cast<int>((at & (one_pixel - 1)) >> (coordinate_bits - weight_bits)); };
  const int wx = fraction(u), wy = fraction(v);
  const uint8_t* upper = canvas.scratch + std::max<int64_t>(top, 0) * canvas.side * canvas.channels;
  const uint8_t* lower = canvas.scratch + std::min(top + 1, last) * canvas.side * canvas.channels;
  const int64_t a = std::max<int64_t>(left, 0) * canvas.channels, b = std::min(left + 1, last) * canvas.channels;
  for (int64_t c = 0; c < canvas.channels; ++c) {
    const int above = upper[a + c] * (one - wx) + upper[b + c] * wx;
    const int beneath = lower[a + c] * (one - wx) + lower[b + c] * wx;
    pixel[c] = static_cast<uint8_t>((above * (one - wy) + beneath * wy + one * one / 2) >> (2 * weight_bits));
  }
}

/// Black comes in from outside, as it does at a crop's border.
void warp(const Canvas& canvas, const AffineMap& map) {
  std::ranges::copy(canvas.values(), canvas.scratch);
  const int64_t xx = fixed(map.xx), xy = fixed(map.xy), yx = fixed(map.yx), yy = fixed(map.yy), end = canvas.side * one_pixel;
  uint8_t* pixel = canvas.pixels;
  for (int64_t row = 0; row < canvas.side; ++row) {
    // From the centre of the row's first pixel: half a pixel right of the border, row + 1/2 below it.
    int64_t x = fixed(map.x0) + ((xx + xy * (2 * row + 1)) >> 1), y = fixed(map.y0) + ((yx + yy * (2 * row + 1)) >> 1);
    for (int64_t column = 0; column < canvas.side; ++column, x += xx, y += yx, pixel += canvas.channels) {
      if (x >= 0 && x < end && y >= 0 && y < end)
        sample(canvas, x, y, pixel);
      else
        std::fill_n(pixel, canvas.channels, uint8_t{0});
    }
  }
}

/// About the image's centre.
void rotate(const Canvas& canvas, double strength) {
  const double angle = strength * std::numbers::pi / 6, cosine = std::cos(angle), sine = std::sin(angle);
  const double centre = static_cast<double>(canvas.side) / 2;
  warp(canvas, {.xx = cosine,
                .xy = sine,
                .x0 = centre - (cosine + sine) * centre,
                .yx = -sine,
                .yy = cosine,
                .y0 = centre - (cosine - sine) * centre});
}

double shift(const Canvas& canvas, double strength) { return 0.45 * strength * static_cast<double>(canvas.side); }

}  // namespace

void apply_operation(const DrawnOperation& drawn, int64_t side, int64_t channels, uint8_t* image, uint8_t* scratch) {
  const Canvas canvas{.side = side, .channels = channels, .pixels = image, .scratch = scratch};
  const double strength = drawn.strength;
  if (side == 0) return;
  switch (drawn.operation) {
    case ImageOperation::identity: return;
    case ImageOperation::autocontrast: return autocontrast(canvas);
    case ImageOperation::equalize: return equalize(canvas);
    case ImageOperation::rotate: return rotate(canvas, strength);
    case ImageOperation::posterize: return posterize(canvas, strength);
    case ImageOperation::solarize: return solarize(canvas, strength);
    case ImageOperation::color: return color(canvas, strength);
    case ImageOperation::contrast: return contrast(canvas, strength);
    case ImageOperation::brightness: return brightness(canvas, strength);
    case ImageOperation::sharpness: return sharpness(canvas, strength);
    case ImageOperation::shear_x: return warp(canvas, {.xy = 0.3 * strength});
    case ImageOperation::shear_y: return warp(canvas, {.yx = 0.3 * strength});
    case ImageOperation::translate_x: return warp(canvas, {.x0 = shift(canvas, strength)});
    case ImageOperation::translate_y: return warp(canvas, {.y0 = shift(canvas, strength)});
  }
}

void randaugment(const RandAugmentDims& dims, const uint8_t* pixels, uint8_t* varied, uint8_t* scratch) {
  const int64_t size = dims.side * dims.side * dims.channels;
#pragma omp parallel for schedule(dynamic) if (dims.batch * size * dims.operations > 4096)
  for (int64_t b = 0; b < dims.batch; ++b) {
    std::copy_n(pixels + b * size, size, varied + b * size);
    for (int64_t i = 0; i < dims.operations; ++i)
      apply_operation(draw_operation(dims, b, i), dims.side, dims.channels, varied + b * size, scratch + b * size);
  }
}

}  // namespace ermoe::cpu
