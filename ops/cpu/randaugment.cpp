// RandAugment on the CPU: one small function an operation, images spread over the cores. Strengths and formulas are those of
// AutoAugment's published list (Cubuk et al., arXiv 1805.09501), as image libraries compute them, but rounded to nearest.
#include "ops/kernels/randaugment.h"

#include <algorithm>
#include <array>
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

void posterize(const Canvas& canvas, double strength) {
  const int cleared = cleared_bits(strength);
  map_values(canvas, [=](int v) { return v >> cleared << cleared; });
}

/// Inverts values from a threshold on.
void solarize(const Canvas& canvas, double strength) {
  const int threshold = solarize_threshold(strength);
  map_values(canvas, [=](int v) { return v >= threshold ? 255 - v : v; });
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

/// Blends with the smoothed image. The outermost pixels stay.
void sharpness(const Canvas& canvas, double strength) {
  std::ranges::copy(canvas.values(), canvas.scratch);
  const int factor = blend_factor(strength);
  const int64_t row = canvas.side * canvas.channels, step = canvas.channels;
  for (int64_t y = 1; y < canvas.side - 1; ++y)
    for (int64_t i = y * row + step; i < (y + 1) * row - step; ++i) {
      const uint8_t* p = canvas.scratch + i;
      canvas.pixels[i] = blend(smoothed(p, row, step), p[0], factor);
    }
}

void warp(const Canvas& canvas, const AffineMap& map) {
  std::ranges::copy(canvas.values(), canvas.scratch);
  uint8_t* pixel = canvas.pixels;
  for (int64_t row = 0; row < canvas.side; ++row) {
    int64_t x = map.first_x(row), y = map.first_y(row);
    for (int64_t column = 0; column < canvas.side; ++column, x += map.xx, y += map.yx, pixel += canvas.channels)
      sample(canvas.scratch, canvas.side, canvas.channels, x, y, pixel);
  }
}

}  // namespace

void apply_operation(const DrawnOperation& drawn, int64_t side, int64_t channels, uint8_t* image, uint8_t* scratch) {
  const Canvas canvas{.side = side, .channels = channels, .pixels = image, .scratch = scratch};
  const double strength = drawn.strength;
  if (side == 0) return;
  switch (drawn.operation) {
    case ImageOperation::identity: return;
    case ImageOperation::autocontrast: return autocontrast(canvas);
    case ImageOperation::equalize: return equalize(canvas);
    case ImageOperation::posterize: return posterize(canvas, strength);
    case ImageOperation::solarize: return solarize(canvas, strength);
    case ImageOperation::color: return color(canvas, strength);
    case ImageOperation::contrast: return contrast(canvas, strength);
    case ImageOperation::brightness: return brightness(canvas, strength);
    case ImageOperation::sharpness: return sharpness(canvas, strength);
    case ImageOperation::rotate:
    case ImageOperation::shear_x:
    case ImageOperation::shear_y:
    case ImageOperation::translate_x:
    case ImageOperation::translate_y: return warp(canvas, affine_map(drawn.operation, strength, side));
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
