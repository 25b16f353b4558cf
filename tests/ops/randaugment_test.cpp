// RandAugment: each operation against its definition, then the draws and their order.
#include "ops/kernels/randaugment.h"

#include "ops/augment.h"
#include "tests/bench.h"
#include "tests/gpu_bench.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <map>
#include <numbers>
#include <utility>

namespace ermoe::testing {
namespace {

using Op = ImageOperation;
using Bytes = std::vector<uint8_t>;

struct Image {
  int64_t side, channels;
  Bytes pixels;

  Image(int64_t s, int64_t c) : side(s), channels(c), pixels(static_cast<size_t>(s * s * c)) {}
  uint8_t& at(int64_t y, int64_t x, int64_t c) { return pixels[static_cast<size_t>((y * side + x) * channels + c)]; }
  uint8_t at(int64_t y, int64_t x, int64_t c) const { return pixels[static_cast<size_t>((y * side + x) * channels + c)]; }
};

Image random_image(int64_t side, int64_t channels, int low = 0, int high = 255) {
  Image image(side, channels);
  for (size_t i = 0; i < image.pixels.size(); ++i)
    image.pixels[i] = static_cast<uint8_t>(low + below(philox(RngKey{3}, uint64_t{i}).x[0], high - low + 1));
  return image;
}

Image apply(Op op, double strength, Image image) {
  Bytes scratch(image.pixels.size(), 0xab);
  cpu::apply_operation({op, strength}, image.side, image.channels, image.pixels.data(), scratch.data());
  return image;
}

TEST(RandAugment, StrengthZeroChangesNothing) {
  for (int64_t channels : {1, 3})
    for (int64_t side : {1, 2, 7, 32}) {
      const Image image = random_image(side, channels);
      for (int op = 0; op < image_operations; ++op) {
        if (static_cast<Op>(op) == Op::autocontrast || static_cast<Op>(op) == Op::equalize) continue;
        EXPECT_EQ(apply(static_cast<Op>(op), 0.0, image).pixels, image.pixels) << "operation " << op << ", side " << side;
        EXPECT_EQ(apply(static_cast<Op>(op), -0.0, image).pixels, image.pixels) << "operation " << op << ", side " << side;
      }
    }
}

TEST(RandAugment, EveryOperationButIdentityChangesAnImageAtFullStrength) {
  const Image image = random_image(16, 3, 40, 200);
  for (int op = 1; op < image_operations; ++op)
    for (double strength : {-1.0, 1.0}) EXPECT_NE(apply(static_cast<Op>(op), strength, image).pixels, image.pixels) << "operation " << op;
  EXPECT_EQ(apply(Op::identity, 1, image).pixels, image.pixels);
}

/// Where the point (x, y) of the result comes from, by the definition of each operation.
std::pair<double, double> source_of(Op op, double strength, double side, double x, double y) {
  const double half = side / 2, angle = strength * std::numbers::pi / 6;
  switch (op) {
    case Op::rotate: {
      const double radius = std::hypot(x - half, y - half), direction = std::atan2(y - half, x - half) - angle;
      return {half + radius * std::cos(direction), half + radius * std::sin(direction)};
    }
    case Op::shear_x: return {x + 0.3 * strength * y, y};
    case Op::shear_y: return {x, y + 0.3 * strength * x};
    case Op::translate_x: return {x + 0.45 * strength * side, y};
    default: return {x, y + 0.45 * strength * side};
  }
}

TEST(RandAugment, GeometryMovesALinearRampToWhereItBelongs) {
  const int64_t side = 40;
  for (int64_t channels : {1, 3}) {
    const auto ramp = [](double x, double y, int64_t c) { return 30 + (1.7 + 0.3 * static_cast<double>(c)) * x + 2.3 * y; };
    Image image(side, channels);
    for (int64_t y = 0; y < side; ++y)
      for (int64_t x = 0; x < side; ++x)
        for (int64_t c = 0; c < channels; ++c)
          image.at(y, x, c) = static_cast<uint8_t>(std::lround(ramp(static_cast<double>(x) + 0.5, static_cast<double>(y) + 0.5, c)));
    for (Op op : {Op::rotate, Op::shear_x, Op::shear_y, Op::translate_x, Op::translate_y})
      for (double strength : {-1.0, -0.37, 0.08, 0.9, 1.0}) {
        const Image out = apply(op, strength, image);
        int inside = 0;
        for (int64_t y = 0; y < side; ++y)
          for (int64_t x = 0; x < side; ++x) {
            const auto [u, v] = source_of(op, strength, side, static_cast<double>(x) + 0.5, static_cast<double>(y) + 0.5);
            const double margin = std::min({u, v, side - u, side - v});  // to the border, inwards
            for (int64_t c = 0; c < channels; ++c) {
              // The ramp's rounding and the result's are half a level each; the weights' steps of 1/256 are the rest.
              const double expected = margin < 0 ? 0 : ramp(u, v, c), tolerance = margin < 0 ? 0 : 1.02;
              if (margin >= 0.5 || margin < -1e-6) {
                EXPECT_NEAR(out.at(y, x, c), expected, tolerance) << "operation " << static_cast<int>(op);
              }
            }
            inside += margin >= 0.5;
          }
        EXPECT_GT(inside, side * side / 3);
      }
  }
}

TEST(RandAugment, AWholeTranslationMovesPixelsExactly) {
  const Image image = random_image(20, 3);
  for (int64_t shift : {-9, -1, 4, 9}) {
    const double strength = static_cast<double>(shift) / 9;  // 0.45 of 20 pixels at strength 1
    const Image right = apply(Op::translate_x, strength, image), down = apply(Op::translate_y, strength, image);
    for (int64_t y = 0; y < 20; ++y)
      for (int64_t x = 0; x < 20; ++x)
        for (int64_t c = 0; c < 3; ++c) {
          EXPECT_EQ(right.at(y, x, c), x + shift >= 0 && x + shift < 20 ? image.at(y, x + shift, c) : 0);
          EXPECT_EQ(down.at(y, x, c), y + shift >= 0 && y + shift < 20 ? image.at(y + shift, x, c) : 0);
        }
  }
}

TEST(RandAugment, BlendsFollowTheirFormulas) {
  for (int64_t channels : {1, 3})
    for (double strength : {-1.0, -0.4, 0.3, 1.0}) {
      const int64_t side = 9;
      const Image image = random_image(side, channels);
      const Image bright = apply(Op::brightness, strength, image), high = apply(Op::contrast, strength, image),
                  colourful = apply(Op::color, strength, image), sharp = apply(Op::sharpness, strength, image);
      const auto luma = [&](int64_t y, int64_t x) {
        return channels == 1 ? image.at(y, x, 0) : 0.299 * image.at(y, x, 0) + 0.587 * image.at(y, x, 1) + 0.114 * image.at(y, x, 2);
      };
      double mean = 0;
      for (int64_t i = 0; i < side * side; ++i) mean += luma(i / side, i % side) / static_cast<double>(side * side);
      for (int64_t y = 0; y < side; ++y)
        for (int64_t x = 0; x < side; ++x)
          for (int64_t c = 0; c < channels; ++c) {
            const double v = image.at(y, x, c), factor = 1 + 0.9 * strength;
            const auto near = [&](const Image& out, double base) {
              // Half a level of the result; the base is rounded too, which counts by |1 - factor| < 1 (by 1 for a rounded mean of lumas).
              EXPECT_NEAR(out.at(y, x, c), std::clamp(base + factor * (v - base), 0.0, 255.0), 0.51 + std::abs(1 - factor));
            };
            near(bright, 0);
            near(high, mean);
            near(colourful, channels == 1 ? v : luma(y, x));
            double smooth = v;
            if (y > 0 && x > 0 && y < side - 1 && x < side - 1) {
              smooth = 4 * v;
              for (int64_t i = -1; i <= 1; ++i)
                for (int64_t j = -1; j <= 1; ++j) smooth += image.at(y + i, x + j, c);
              smooth /= 13;
            }
            near(sharp, smooth);
          }
    }
}

TEST(RandAugment, PosterizeKeepsTheHighBits) {
  const Image image = random_image(32, 3);
  for (double sign : {-1.0, 1.0})
    for (int cleared = 0; cleared <= 4; ++cleared) {
      const Image out = apply(Op::posterize, sign * cleared / 4, image);
      for (size_t i = 0; i < image.pixels.size(); ++i) EXPECT_EQ(out.pixels[i], image.pixels[i] / (1 << cleared) * (1 << cleared));
    }
}

TEST(RandAugment, SolarizeInvertsBrightPixels) {
  const Image image = random_image(32, 3);
  for (double strength : {-1.0, -0.5, 0.25, 1.0}) {
    const Image out = apply(Op::solarize, strength, image);
    for (size_t i = 0; i < image.pixels.size(); ++i) {
      const int v = image.pixels[i];
      EXPECT_EQ(out.pixels[i], v >= 256 - 256 * std::abs(strength) ? 255 - v : v);
    }
  }
}

TEST(RandAugment, AutocontrastUsesTheWholeRange) {
  Image image = random_image(16, 3, 60, 180);
  for (int64_t i = 0; i < 256; ++i) image.pixels[static_cast<size_t>(3 * i + 2)] = 99;  // a channel of one value stays as it is
  const Image out = apply(Op::autocontrast, 0.5, image);
  for (int64_t c = 0; c < 2; ++c) {
    int low = 255, high = 0, out_low = 255, out_high = 0;
    for (int64_t i = 0; i < 256; ++i) {
      low = std::min<int>(low, image.at(0, i, c)), high = std::max<int>(high, image.at(0, i, c));
      out_low = std::min<int>(out_low, out.at(0, i, c)), out_high = std::max<int>(out_high, out.at(0, i, c));
    }
    EXPECT_EQ(out_low, 0);
    EXPECT_EQ(out_high, 255);
    for (int64_t i = 0; i < 256; ++i) EXPECT_NEAR(out.at(0, i, c), 255.0 * (image.at(0, i, c) - low) / (high - low), 0.5);
  }
  for (int64_t i = 0; i < 256; ++i) EXPECT_EQ(out.at(0, i, 2), 99);
}

TEST(RandAugment, EqualizeMakesValuesUniform) {
  Image image = random_image(64, 1);
  for (uint8_t& v : image.pixels) v = static_cast<uint8_t>(v * v / 255 / 2);  // dark: density like 1/sqrt
  const Image out = apply(Op::equalize, 0.5, image);
  std::map<uint8_t, uint8_t> mapping;
  for (size_t i = 0; i < out.pixels.size(); ++i) {
    const auto [at, fresh] = mapping.emplace(image.pixels[i], out.pixels[i]);
    EXPECT_EQ(at->second, out.pixels[i]) << "not a mapping of values";
  }
  uint8_t before = 0;
  for (const auto& [from, to] : mapping) EXPECT_GE(to, std::exchange(before, to)) << "not monotone";
  // A mapping of values cannot split the pixels of one value, so it is as flat as the largest group allows.
  std::map<uint8_t, int> groups;
  int largest = 0;
  for (uint8_t v : image.pixels) largest = std::max(largest, ++groups[v]);
  const auto all = static_cast<double>(out.pixels.size());
  for (int v = 0; v < 256; v += 5) {
    const auto darker = std::count_if(out.pixels.begin(), out.pixels.end(), [&](uint8_t p) { return p <= v; });
    EXPECT_NEAR(static_cast<double>(darker) / all, (v + 1) / 256.0, largest / all + 0.07) << "value " << v;
  }
  const Image flat(8, 3);
  EXPECT_EQ(apply(Op::equalize, 0.5, flat).pixels, flat.pixels);
}

TEST(RandAugment, DrawsEveryOperationAndSignEquallyOften) {
  const RandAugmentDims dims{.batch = 7000, .side = 1, .channels = 1, .operations = 2, .strength = 0.9, .key = RngKey{4}};
  std::map<std::pair<Op, bool>, int> counts;
  int equal = 0;
  for (int64_t b = 0; b < dims.batch; ++b) {
    for (int64_t i = 0; i < 2; ++i) {
      const DrawnOperation drawn = draw_operation(dims, b, i);
      EXPECT_EQ(std::abs(drawn.strength), 0.9);
      ++counts[{drawn.operation, drawn.strength > 0}];
    }
    equal += draw_operation(dims, b, 0).operation == draw_operation(dims, b, 1).operation;
  }
  EXPECT_EQ(counts.size(), 28u);
  double chi = 0;  // 27 degrees of freedom: mean 27, deviation 7.3; the bound is five deviations up
  for (const auto& [drawn, count] : counts) chi += (count - 500.0) * (count - 500.0) / 500;
  EXPECT_LT(chi, 64);
  EXPECT_NEAR(equal, 500, 5 * std::sqrt(500 * 13 / 14.0)) << "the two operations of an image are not independent";
}

Tensor random_batch(TestBench& bench, int64_t batch, int64_t side, int64_t channels) {
  const Image image = random_image(side, channels);
  Tensor t = bench.ctx.empty({batch, side, side, channels}, DType::u8);
  for (int64_t b = 0; b < batch; ++b) std::ranges::copy(image.pixels, t.at(b).data<uint8_t>());
  return t;
}

const Normalisation normalisation{{0.5, 0.4, 0.3}, {0.2, 0.25, 0.3}};

TEST(RandAugment, ComesFirstAndLeavesTheSourceAlone) {
  TestBench bench;
  const int64_t batch = 60, side = 12;
  const AugmentSettings rest{.crop_padding = 2, .flip = true, .erasing = 0.5};
  AugmentSettings all = rest;
  all.randaugment_n = 3, all.randaugment_m = 7;
  const Tensor pixels = random_batch(bench, batch, side, 3), untouched = pixels.clone();
  const Tensor out = augment(bench.ctx, pixels, all, normalisation, RngKey{5});
  EXPECT_TRUE(std::ranges::equal(pixels.span<uint8_t>(), untouched.span<uint8_t>()));

  const RandAugmentDims dims{.batch = batch, .side = side, .channels = 3, .operations = 3, .strength = 0.7, .key = RngKey{5}};
  const Tensor varied = pixels.clone();
  Bytes scratch(static_cast<size_t>(side * side * 3));
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t i = 0; i < 3; ++i) cpu::apply_operation(draw_operation(dims, b, i), side, 3, varied.at(b).data<uint8_t>(), scratch.data());
  EXPECT_EQ(to_doubles(out), to_doubles(augment(bench.ctx, varied, rest, normalisation, RngKey{5})));
}

TEST(RandAugment, AnImageDoesNotDependOnTheRestOfTheBatchOrOnThreads) {
  TestBench bench;
  const AugmentSettings settings{.randaugment_n = 2, .randaugment_m = 9};
  const Tensor pixels = random_batch(bench, 33, 24, 3);
  const int before = omp_get_max_threads();
  std::vector<std::vector<double>> runs;
  for (int threads : {1, 2, 5}) {
    omp_set_num_threads(threads);
    runs.push_back(to_doubles(augment(bench.ctx, pixels, settings, normalisation, RngKey{6})));
  }
  omp_set_num_threads(before);
  EXPECT_EQ(runs[0], runs[1]);
  EXPECT_EQ(runs[0], runs[2]);
  const auto first = to_doubles(augment(bench.ctx, pixels.slice(0, 7), settings, normalisation, RngKey{6}));
  EXPECT_TRUE(std::equal(first.begin(), first.end(), runs[0].begin()));
}

#if defined(ERMOE_WITH_CUDA)
void expect_gpu_agrees() {
  TestBench cpu;
  GpuBench gpu;
  for (int64_t channels : {1, 3})
    for (int64_t side : {1, 2, 13, 64}) {
      const Tensor pixels = random_batch(cpu, 97, side, channels);  // so many that every operation is drawn
      const Normalisation n = channels == 1 ? Normalisation{{0.5}, {0.2}} : normalisation;
      for (double strength : {0.0, 4.0, 10.0}) {
        const AugmentSettings settings{.randaugment_n = 2, .randaugment_m = strength};
        EXPECT_EQ(to_vector<float>(augment(gpu.ctx, to_device(gpu.ctx, pixels), settings, n, RngKey{8})),
                  to_vector<float>(augment(cpu.ctx, pixels, settings, n, RngKey{8})))
            << "side " << side << ", channels " << channels << ", strength " << strength;
      }
    }
}

TEST(RandAugment, OnAGpuGivesTheSameBits) { ERMOE_NEEDS_GPU(expect_gpu_agrees()); }
#endif

}  // namespace
}  // namespace ermoe::testing
