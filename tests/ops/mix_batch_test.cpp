// Mixup and cutmix: the share of the partner is recovered from pixels and targets alike.
#include "ops/augment.h"

#include "tests/bench.h"
#include "tests/gpu_bench.h"
#include "tests/ops/expect_error.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <array>

namespace ermoe::testing {
namespace {

/// Image b is b + 1 all over and target b is one-hot at b, so a pixel tells whose it is.
struct Batch {
  Tensor images, targets;

  Batch(TestBench& bench, int64_t batch, int64_t channels, int64_t height, int64_t width, DType dtype = DType::f64)
      : images(bench.ctx.empty({batch, channels, height, width}, dtype)), targets(Tensor::zeros(bench.allocator, {batch, batch}, dtype)) {
    dispatch_float(dtype, "test", [&](auto tag) {
      using T = decltype(tag);
      for (int64_t b = 0; b < batch; ++b) {
        std::ranges::fill(images.at(b).span<T>(), static_cast<T>(b + 1));
        targets.data<T>()[b * batch + b] = 1;
      }
    });
  }
};

/// The share that the targets say image 0 keeps of itself; checks every row of targets on the way.
double own_share(const Tensor& targets) {
  const int64_t batch = targets.shape()[0];
  const auto t = to_doubles(targets);
  const double own = t[0];
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t y = 0; y < batch; ++y) {
      double expected = 0;
      if (y == b) expected += 2 * b == batch - 1 ? 1 : own;
      if (y == batch - 1 - b && y != b) expected += 1 - own;
      EXPECT_NEAR(t[static_cast<size_t>(b * batch + y)], expected, 1e-15) << "target " << y << " of row " << b;
    }
  return own;
}

TEST(MixBatch, MixupMixesPixelsAndTargetsByTheSameShare) {
  TestBench bench;
  for (int64_t batch : {2, 5, 8})
    for (uint64_t key = 0; key < 20; ++key) {
      const Batch x(bench, batch, 3, 4, 5);
      mix_batch(bench.ctx, x.images, x.targets, {.mixup = 1}, RngKey{key});
      const double own = own_share(x.targets);
      EXPECT_GT(own, 0);
      EXPECT_LT(own, 1);
      for (int64_t b = 0; b < batch; ++b)
        for (double v : to_doubles(x.images.at(b)))
          EXPECT_NEAR(v, own * static_cast<double>(b + 1) + (1 - own) * static_cast<double>(batch - b), 1e-12);
    }
}

TEST(MixBatch, CutmixPastesOneBoxWhoseAreaIsTheShare) {
  TestBench bench;
  int pasted = 0;
  for (int64_t batch : {2, 5, 8})
    for (uint64_t key = 0; key < 100; ++key) {
      const int64_t height = 9, width = 13;
      const Batch x(bench, batch, 2, height, width);
      mix_batch(bench.ctx, x.images, x.targets, {.cutmix = 1}, RngKey{key});
      const double own = own_share(x.targets);
      const auto image0 = to_doubles(x.images.at(0));
      int64_t top = height, bottom = -1, left = width, right = -1, foreign = 0;
      for (int64_t y = 0; y < height; ++y)
        for (int64_t col = 0; col < width; ++col) {
          if (image0[static_cast<size_t>(y * width + col)] == 1) continue;
          top = std::min(top, y), bottom = std::max(bottom, y), left = std::min(left, col), right = std::max(right, col);
          ++foreign;
        }
      if (foreign > 0) {
        EXPECT_EQ(foreign, (bottom - top + 1) * (right - left + 1)) << "not a box";
      }
      EXPECT_NEAR(own, 1 - static_cast<double>(foreign) / static_cast<double>(height * width), 1e-15);
      pasted += foreign > 0;
      for (int64_t b = 0; b < batch; ++b) {  // the same box everywhere
        const auto image = to_doubles(x.images.at(b));
        for (size_t i = 0; i < image.size(); ++i)
          ASSERT_EQ(image[i],
                    image0[i % static_cast<size_t>(height * width)] == 1 ? static_cast<double>(b + 1) : static_cast<double>(batch - b));
      }
    }
  EXPECT_GT(pasted, 200);
}

TEST(MixBatch, ABoxWithinTheImageHasTheDrawnArea) {
  TestBench bench;
  int64_t largest = 0;
  for (uint64_t key = 0; key < 60; ++key) {
    const Batch x(bench, 2, 1, 64, 64);
    mix_batch(bench.ctx, x.images, x.targets, {.cutmix = 1e15}, RngKey{key});  // so large an alpha that the share is 1/2
    const auto image = to_doubles(x.images.at(0));
    largest = std::max<int64_t>(largest, std::count(image.begin(), image.end(), 2.0));
  }
  EXPECT_EQ(largest, 44 * 44);  // 64 sqrt(1/2) = 45.3, two halves of 22; others are cut off at the border
}

TEST(MixBatch, SharesFollowTheBetaDistribution) {
  TestBench bench;
  const int draws = 40'000;
  const Batch x(bench, 2, 1, 1, 1);
  for (double alpha : {0.2, 0.8, 1.0, 4.0}) {
    double mean = 0, square = 0;
    for (uint64_t key = 0; key < draws; ++key) {
      std::ranges::copy(std::array{1.0, 0.0, 0.0, 1.0}, x.targets.data<double>());
      mix_batch(bench.ctx, x.images, x.targets, {.mixup = alpha}, RngKey{8}.fold(key));
      const double own = x.targets.data<double>()[0];
      mean += own / draws;
      square += (own - 0.5) * (own - 0.5) / draws;
    }
    // Beta(α, α): variance 1/(4 (2α + 1)), fourth central moment 3/(16 (2α + 1) (2α + 3)).
    const double variance = 1 / (4 * (2 * alpha + 1)), fourth = 3 / (16 * (2 * alpha + 1) * (2 * alpha + 3));
    EXPECT_NEAR(mean, 0.5, 5 * std::sqrt(variance / draws)) << "alpha " << alpha;
    EXPECT_NEAR(square, variance, 5 * std::sqrt((fourth - variance * variance) / draws)) << "alpha " << alpha;
  }
}

TEST(MixBatch, SharesStayNumbersForExtremeAlphas) {
  TestBench bench;
  for (double alpha : {5e-324, 1e-9, 1e12, 1e300})
    for (uint64_t key = 0; key < 50; ++key) {
      const Batch x(bench, 2, 1, 1, 1);
      mix_batch(bench.ctx, x.images, x.targets, {.mixup = alpha}, RngKey{key});
      const double own = x.targets.data<double>()[0];
      EXPECT_NEAR(alpha < 1 ? std::min(own, 1 - own) : std::abs(own - 0.5), 0, 1e-5) << "alpha " << alpha;
    }
}

TEST(MixBatch, ProbabilityAndShareOfCutmixAreKept) {
  TestBench bench;
  const int draws = 3000;
  int mixed = 0, cut = 0;
  for (uint64_t key = 0; key < draws; ++key) {
    const Batch x(bench, 2, 1, 8, 8);
    mix_batch(bench.ctx, x.images, x.targets, {.mixup = 4, .cutmix = 4, .probability = 0.6, .cutmix_share = 0.3}, RngKey{9}.fold(key));
    const auto image = to_doubles(x.images.at(0));
    const bool whole = std::ranges::all_of(image, [](double v) { return v == 1 || v == 2; });
    if (std::ranges::all_of(image, [](double v) { return v == 1; })) continue;  // Beta(4, 4) almost never draws an empty box
    ++mixed;
    cut += whole;
  }
  EXPECT_NEAR(mixed, 0.6 * draws, 5 * std::sqrt(0.6 * 0.4 * draws));
  EXPECT_NEAR(cut, 0.3 * mixed, 5 * std::sqrt(0.3 * 0.7 * mixed));
}

TEST(MixBatch, LeavesTheBatchAloneWhereItIsOff) {
  TestBench bench;
  for (const MixSettings& settings : {MixSettings{}, MixSettings{.mixup = 1, .cutmix = 1, .probability = 0}}) {
    const Batch x(bench, 6, 3, 4, 4), untouched(bench, 6, 3, 4, 4);
    mix_batch(bench.ctx, x.images, x.targets, settings, RngKey{1});
    EXPECT_EQ(to_doubles(x.images), to_doubles(untouched.images));
    EXPECT_EQ(to_doubles(x.targets), to_doubles(untouched.targets));
  }
  mix_batch(bench.ctx, bench.ctx.empty({0, 3, 4, 4}, DType::f32), bench.ctx.empty({0, 7}, DType::f32), {.mixup = 1}, RngKey{1});
}

TEST(MixBatch, BitsDoNotDependOnThreads) {
  TestBench bench;
  const int before = omp_get_max_threads();
  for (const MixSettings& settings : {MixSettings{.mixup = 1}, MixSettings{.cutmix = 1}}) {
    std::vector<std::vector<double>> runs;
    for (int threads : {1, 2, 5}) {
      omp_set_num_threads(threads);
      Batch x(bench, 33, 3, 16, 16, DType::f32);
      x.images = random_input(bench.ctx, {x.images.shape()}, DType::f32, RngKey{1});
      mix_batch(bench.ctx, x.images, x.targets, settings, RngKey{2});
      runs.push_back(to_doubles(x.images));
    }
    EXPECT_EQ(runs[0], runs[1]);
    EXPECT_EQ(runs[0], runs[2]);
  }
  omp_set_num_threads(before);
}

TEST(MixBatch, WrongInputsAreRefused) {
  TestBench bench;
  const auto run = [&](const Shape& images, const Shape& targets, const MixSettings& settings, DType dtype = DType::f32) {
    return [&bench, images, targets, settings, dtype] {
      mix_batch(bench.ctx, bench.ctx.empty(images, DType::f32), bench.ctx.empty(targets, dtype), settings, RngKey{});
    };
  };
  expect_error(run({2, 3, 4, 4}, {3, 5}, {}), {"[mix_batch]", "(2, 3, 4, 4)", "(3, 5)"});
  expect_error(run({2, 3, 4}, {2, 5}, {}), {"[mix_batch]", "(2, 3, 4)"});
  expect_error(run({2, 3, 4, 4}, {2, 5}, {}, DType::f64), {"[mix_batch]", "f32", "f64"});
  expect_error([&] { mix_batch(bench.ctx, Tensor(), Tensor(), {}, RngKey{}); }, {"[mix_batch]"});
  for (double bad : {-1.0, std::nan(""), static_cast<double>(INFINITY)}) {
    expect_error(run({2, 3, 4, 4}, {2, 5}, {.mixup = bad}), {"[mix_batch]", "alpha"});
    expect_error(run({2, 3, 4, 4}, {2, 5}, {.cutmix = bad}), {"[mix_batch]", "alpha"});
    expect_error(run({2, 3, 4, 4}, {2, 5}, {.probability = bad}), {"[mix_batch]", "probability"});
    expect_error(run({2, 3, 4, 4}, {2, 5}, {.cutmix_share = bad}), {"[mix_batch]", "share"});
  }
}

#if defined(ERMOE_WITH_CUDA)
void expect_gpu_agrees(const MixSettings& settings) {
  TestBench cpu;
  GpuBench gpu;
  for (const Shape& shape : {Shape{5, 3, 7, 9}, Shape{6, 1, 28, 28}, Shape{8, 3, 32, 32}})
    for (uint64_t key = 0; key < 5; ++key) {
      const auto on = [&](auto& bench) {
        const Tensor images = random_input(bench.ctx, {shape}, DType::f32, RngKey{1});
        const Tensor targets = random_input(bench.ctx, {Shape{shape[0], 11}}, DType::f32, RngKey{2});
        mix_batch(bench.ctx, images, targets, settings, RngKey{key});
        return std::pair(to_doubles(images), to_doubles(targets));
      };
      const auto [images, targets] = on(gpu);
      const auto [wanted_images, wanted_targets] = on(cpu);
      EXPECT_LE(normalised_error(images, wanted_images), 1e-12) << shape.str();
      EXPECT_LE(normalised_error(targets, wanted_targets), 1e-12) << shape.str();
      if (settings.cutmix > 0) {
        EXPECT_EQ(images, wanted_images) << shape.str();
      }
    }
}

TEST(MixBatch, OnAGpuDoesTheSame) {
  for (const MixSettings& settings : {MixSettings{.mixup = 0.8}, MixSettings{.cutmix = 1}}) ERMOE_NEEDS_GPU(expect_gpu_agrees(settings));
}
#endif

}  // namespace
}  // namespace ermoe::testing
