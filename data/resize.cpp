// Separable resampling with fixed-point weights: each output sample is a weighted sum of a short run of input samples, first along
// rows, then along columns. See data/resize.h.
#include "data/resize.h"

#include "core/error.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace ermoe {
namespace {

// Weights are multiples of 2^-22: 8 bits of sample, 22 of weight and the filter's overshoot fit 32 bits.
constexpr int weight_bits = 22;

double triangle(double x) { return std::max(0.0, 1.0 - std::abs(x)); }

/// R. Keys, "Cubic convolution interpolation for digital image processing", 1981, with a = -1/2.
double cubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
  return 0.0;
}

/// For every output position: where its run of inputs starts, how long it is, and the weights, which sum to 1.
struct Weights {
  int64_t stride = 0;           // weights kept for one position
  std::vector<int64_t> first;   // (out)
  std::vector<int64_t> count;   // (out)
  std::vector<int32_t> values;  // (out, stride)
};

Weights make_weights(int64_t in, int64_t out, ResizeFilter filter) {
  const auto kernel = filter == ResizeFilter::bilinear ? triangle : cubic;
  const double ratio = static_cast<double>(in) / static_cast<double>(out);
  const double widening = std::max(ratio, 1.0);
  const double reach = (filter == ResizeFilter::bilinear ? 1.0 : 2.0) * widening;
  Weights w;
  w.stride = 2 * static_cast<int64_t>(std::ceil(reach)) + 1;
  w.first.resize(static_cast<size_t>(out));
  w.count.resize(static_cast<size_t>(out));
  w.values.resize(static_cast<size_t>(out * w.stride));
  std::vector<double> exact(static_cast<size_t>(w.stride));
  for (int64_t i = 0; i < out; ++i) {
    const double center = (static_cast<double>(i) + 0.5) * ratio;
    const int64_t first = std::max<int64_t>(0, static_cast<int64_t>(center - reach + 0.5));
    const int64_t last = std::min(in, static_cast<int64_t>(center + reach + 0.5));
    double sum = 0;
    for (int64_t j = first; j < last; ++j) sum += exact[j - first] = kernel((static_cast<double>(j) - center + 0.5) / widening);
    for (int64_t j = first; j < last; ++j)
      w.values[i * w.stride + j - first] = static_cast<int32_t>(std::lround(exact[j - first] / sum * (1 << weight_bits)));
    w.first[i] = first;
    w.count[i] = last - first;
  }
  return w;
}

uint8_t to_sample(int32_t sum) { return static_cast<uint8_t>(std::clamp((sum + (1 << (weight_bits - 1))) >> weight_bits, 0, 255)); }

Image empty_rows(const Image& image, int64_t width) {
  return {image.height, width, image.channels, std::vector<uint8_t>(static_cast<size_t>(image.height * width * image.channels))};
}

/// Scales the rows (W -> w.first.size()) of a grey image.
Image scale_grey_rows(const Image& image, const Weights& w) {
  Image out = empty_rows(image, static_cast<int64_t>(w.first.size()));
  for (int64_t y = 0; y < image.height; ++y) {
    const uint8_t* row = image.pixels.data() + y * image.width;
    uint8_t* to = out.pixels.data() + y * out.width;
    for (int64_t x = 0; x < out.width; ++x) {
      const int32_t* weight = w.values.data() + x * w.stride;
      int32_t sum = 0;
      for (int64_t j = 0; j < w.count[x]; ++j) sum += row[w.first[x] + j] * weight[j];
      to[x] = to_sample(sum);
    }
  }
  return out;
}

/// One pixel of each of two rows, R G B and a lane that nobody reads: as wide as a register, so that a weight is one
/// multiplication for both.
struct alignas(32) TwoPixels {
  using Lanes = int32_t __attribute__((vector_size(32)));
  Lanes lanes;

  /// The four bytes at `a` and those at `b`.
  void load(const uint8_t* a, const uint8_t* b) {
    uint8_t bytes __attribute__((vector_size(8)));
    std::memcpy(&bytes, a, 4);
    std::memcpy(reinterpret_cast<uint8_t*>(&bytes) + 4, b, 4);
    lanes = __builtin_convertvector(bytes, Lanes);
  }
  /// Sums as samples, to the three bytes at `a` and at `b`.
  void store_samples(uint8_t* a, uint8_t* b) const {
    using Bytes = uint8_t __attribute__((vector_size(8)));
    Lanes v = (lanes + (1 << (weight_bits - 1))) >> weight_bits;
    v = v < 0 ? Lanes{} : v;
    v = v > 255 ? Lanes{} + 255 : v;
    const Bytes bytes = __builtin_convertvector(v, Bytes);
    std::memcpy(a, &bytes, 3);
    std::memcpy(b, reinterpret_cast<const uint8_t*>(&bytes) + 4, 3);
  }
};

/// Rows `a` and `b` of RGB, pixel by pixel; the last one without the byte behind it, which may belong to nobody.
void pair_rows(const uint8_t* a, const uint8_t* b, std::vector<TwoPixels>& pixels) {
  const size_t last = pixels.size() - 1;
  for (size_t x = 0; x < last; ++x) pixels[x].load(a + 3 * x, b + 3 * x);
  const uint8_t *end_a = a + 3 * last, *end_b = b + 3 * last;
  pixels[last].lanes = TwoPixels::Lanes{end_a[0], end_a[1], end_a[2], 0, end_b[0], end_b[1], end_b[2], 0};
}

/// The same of an RGB image, two rows at a time.
Image scale_colour_rows(const Image& image, const Weights& w) {
  Image out = empty_rows(image, static_cast<int64_t>(w.first.size()));
  std::vector<TwoPixels> pixels(static_cast<size_t>(image.width));
  for (int64_t y = 0; y < image.height; y += 2) {
    const int64_t below = std::min(y + 1, image.height - 1);  // an odd last row is made twice
    pair_rows(image.pixels.data() + y * image.width * 3, image.pixels.data() + below * image.width * 3, pixels);
    uint8_t *upper = out.pixels.data() + y * out.width * 3, *lower = out.pixels.data() + below * out.width * 3;
    for (int64_t x = 0; x < out.width; ++x) {
      const TwoPixels* from = pixels.data() + w.first[x];
      const int32_t* weight = w.values.data() + x * w.stride;
      const int64_t count = w.count[x];
      TwoPixels sum{};
      for (int64_t j = 0; j < count; ++j) sum.lanes += from[j].lanes * weight[j];
      sum.store_samples(upper + 3 * x, lower + 3 * x);
    }
  }
  return out;
}

/// Scales the columns (H -> w.first.size()); a whole row of samples at once, so that the compiler can vectorise.
Image scale_columns(const Image& image, const Weights& w) {
  const auto out_height = static_cast<int64_t>(w.first.size());
  const int64_t row = image.width * image.channels;
  Image out{out_height, image.width, image.channels, std::vector<uint8_t>(static_cast<size_t>(out_height * row))};
  std::vector<int32_t> sums(static_cast<size_t>(row));
  for (int64_t y = 0; y < out_height; ++y) {
    std::ranges::fill(sums, 0);
    for (int64_t j = 0; j < w.count[y]; ++j) {
      const uint8_t* from = image.pixels.data() + (w.first[y] + j) * row;
      const int32_t weight = w.values[y * w.stride + j];
      for (int64_t i = 0; i < row; ++i) sums[i] += from[i] * weight;
    }
    uint8_t* to = out.pixels.data() + y * row;
    for (int64_t i = 0; i < row; ++i) to[i] = to_sample(sums[i]);
  }
  return out;
}

void check_image(const char* op, const Image& image) {
  check(image.height > 0 && image.width > 0 && (image.channels == 1 || image.channels == 3) &&
            static_cast<int64_t>(image.pixels.size()) == image.height * image.width * image.channels,
        "[{}] an image ({}, {}, {}) with {} samples", op, image.height, image.width, image.channels, image.pixels.size());
}

}  // namespace

Image resize(const Image& image, int64_t height, int64_t width, ResizeFilter filter) {
  check_image("resize", image);
  check(height > 0 && width > 0, "[resize] to ({}, {}); both must be positive", height, width);
  Image wide;
  const Image* source = &image;
  if (width != image.width) {
    const Weights w = make_weights(image.width, width, filter);
    wide = image.channels == 3 ? scale_colour_rows(image, w) : scale_grey_rows(image, w);
    source = &wide;
  }
  if (height != image.height) return scale_columns(*source, make_weights(image.height, height, filter));
  return *source;
}

Image resize_shorter_side(const Image& image, int64_t size, ResizeFilter filter) {
  check_image("resize_shorter_side", image);
  const int64_t shorter = std::min(image.height, image.width);
  return resize(image, image.height * size / shorter, image.width * size / shorter, filter);
}

Image crop(const Image& image, const CropBox& box) {
  check_image("crop", image);
  check(box.top >= 0 && box.left >= 0 && box.height > 0 && box.width > 0 && box.top <= image.height - box.height &&
            box.left <= image.width - box.width,
        "[crop] ({}, {}) at ({}, {}) of an image ({}, {})", box.height, box.width, box.top, box.left, image.height, image.width);
  const int64_t row = box.width * image.channels;
  Image out{box.height, box.width, image.channels, std::vector<uint8_t>(static_cast<size_t>(box.height * row))};
  for (int64_t y = 0; y < box.height; ++y)
    std::memcpy(out.pixels.data() + y * row, image.pixels.data() + ((box.top + y) * image.width + box.left) * image.channels,
                static_cast<size_t>(row));
  return out;
}

Image center_crop(const Image& image, int64_t height, int64_t width) {
  return crop(image, {(image.height - height) / 2, (image.width - width) / 2, height, width});
}

}  // namespace ermoe
