// Variation of volumes: where voxels come from is read off volumes whose values are coordinates.
#include "ops/augment_volume.h"

#include "tests/bench.h"
#include "tests/gpu_bench.h"
#include "tests/ops/expect_error.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <array>
#include <numbers>
#include <set>

namespace ermoe::testing {
namespace {

const Shape ragged{5, 7, 6};  // nz, ny, nx

Shape joined(std::initializer_list<int64_t> front, const Shape& grid) {
  std::vector<int64_t> sizes(front);
  sizes.insert(sizes.end(), grid.begin(), grid.end());
  return Shape(sizes);
}

/// (B, 3, nz, ny, nx): 1 + x, 1 + y and 1 + z of each voxel. Between voxels, trilinear gives the place itself.
Tensor coordinates(TestBench& bench, int64_t batch, const Shape& grid) {
  const Tensor t = bench.ctx.empty(joined({batch, 3}, grid), DType::f32);
  float* at = t.data<float>();
  for (int64_t b = 0; b < batch; ++b)
    for (int axis = 2; axis >= 0; --axis)
      for (int64_t i = 0; i < grid.numel(); ++i) {
        const std::array<int64_t, 3> place{i / grid[2] / grid[1], i / grid[2] % grid[1], i % grid[2]};
        *at++ = static_cast<float>(1 + place[static_cast<size_t>(axis)]);
      }
  return t;
}

/// (B, nz, ny, nx) i32: 1 + number of the voxel.
Tensor voxel_numbers(TestBench& bench, int64_t batch, const Shape& grid) {
  const Tensor t = bench.ctx.empty(joined({batch}, grid), DType::i32);
  for (int64_t i = 0; i < t.numel(); ++i) t.data<int32_t>()[i] = static_cast<int32_t>(1 + i % grid.numel());
  return t;
}

/// (B, C, nz, ny, nx), positive in a box that leaves a border of one voxel, 0 around it.
Tensor heads(const ExecContext& ctx, int64_t batch, int64_t channels, const Shape& grid) {
  const Tensor t = random_input(ctx, {joined({batch, channels}, grid), OpInput::Fill::positive}, DType::f32, RngKey{3});
  for (int64_t i = 0; i < t.numel(); ++i) {
    const int64_t x = i % grid[2], y = i / grid[2] % grid[1], z = i / grid[2] / grid[1] % grid[0];
    if (x == 0 || y == 0 || z == 0 || x == grid[2] - 1 || y == grid[1] - 1 || z == grid[0] - 1) t.data<float>()[i] = 0;
  }
  return t;
}

TEST(AugmentVolume, DoesNothingByDefault) {
  TestBench bench;
  for (const Shape& grid : {ragged, Shape{1, 1, 1}, Shape{1, 9, 2}}) {
    const Tensor volumes = random_input(bench.ctx, {joined({3, 2}, grid)}, DType::f32, RngKey{1});
    const Tensor numbers = voxel_numbers(bench, 3, grid);
    const auto same = augment_volume(bench.ctx, volumes, numbers, {}, RngKey{2});
    EXPECT_EQ(to_vector<float>(same.volumes), to_vector<float>(volumes));
    EXPECT_EQ(to_vector<int32_t>(same.labels), to_vector<int32_t>(numbers));
    const Tensor fractions = random_input(bench.ctx, {joined({3}, grid)}, DType::f32, RngKey{4});
    const auto other = augment_volume(bench.ctx, volumes, fractions, {}, RngKey{2});
    EXPECT_EQ(other.labels.dtype(), DType::f32);
    EXPECT_EQ(to_vector<float>(other.labels), to_vector<float>(fractions));
    EXPECT_FALSE(augment_volume(bench.ctx, volumes, {}, {}, RngKey{2}).labels.defined());
  }
}

TEST(AugmentVolume, MirrorsTheLastAxisOfHalfOfThem) {
  TestBench bench;
  const int64_t batch = 400, nx = ragged[2];
  const Tensor volumes = coordinates(bench, batch, ragged), numbers = voxel_numbers(bench, batch, ragged);
  const auto out = augment_volume(bench.ctx, volumes, numbers, {.flip = true}, RngKey{5});
  int mirrored = 0;
  for (int64_t b = 0; b < batch; ++b) {
    const bool turned = out.volumes.at(b).data<float>()[0] != 1;
    mirrored += turned;
    for (int64_t i = 0; i < ragged.numel(); ++i) {
      const int64_t from = turned ? i - i % nx + nx - 1 - i % nx : i;
      for (int64_t c = 0; c < 3; ++c)
        ASSERT_EQ(out.volumes.at(b).data<float>()[c * ragged.numel() + i], volumes.at(b).data<float>()[c * ragged.numel() + from]);
      ASSERT_EQ(out.labels.at(b).data<int32_t>()[i], from + 1);
    }
  }
  EXPECT_NEAR(mirrored, batch / 2, 5 * std::sqrt(batch) / 2);
}

/// Place (x, y, z) that voxel i of coordinates' image `out` (3, nz, ny, nx) came from.
std::array<double, 3> place_of(const Tensor& out, int64_t i) {
  const int64_t voxels = out.numel() / 3;
  const float* v = out.data<float>();
  return {v[i] - 1.0, v[voxels + i] - 1.0, v[2 * voxels + i] - 1.0};
}

/// Whether voxels of a volume of coordinates lie where a shift of `moved` puts them, and their labels with them.
void expect_shifted(const Tensor& image, const Tensor& labels, const Shape& grid, const std::array<double, 3>& moved) {
  for (int64_t i = 0; i < grid.numel(); ++i) {
    const std::array<double, 3> from{static_cast<double>(i % grid[2]) + moved[0], static_cast<double>(i / grid[2] % grid[1]) + moved[1],
                                     static_cast<double>(i / grid[2] / grid[1]) + moved[2]};
    bool inside = true, beyond = false, close_call = false;  // a close call: half-way between two voxels, within this test's rounding
    for (size_t a = 0; a < 3; ++a) {
      const auto last = static_cast<double>(grid[2 - static_cast<int>(a)] - 1);
      inside = inside && from[a] >= 1e-4 && from[a] <= last - 1e-4;
      beyond = beyond || from[a] <= -1 - 1e-4 || from[a] >= last + 1 + 1e-4;
      close_call = close_call || std::abs(from[a] - std::floor(from[a]) - 0.5) < 1e-4;
    }
    const auto got = place_of(image, i);
    for (size_t a = 0; a < 3 && inside; ++a) ASSERT_NEAR(got[a], from[a], 1e-4) << "voxel " << i << " axis " << a;
    for (size_t a = 0; a < 3 && beyond; ++a) ASSERT_EQ(got[a], -1) << "0 beyond the grid";
    const int64_t nearest = std::llround(from[0]) + grid[2] * (std::llround(from[1]) + grid[1] * std::llround(from[2]));
    const bool labelled = inside && !close_call;
    if (labelled || beyond) {
      ASSERT_EQ(labels.data<int32_t>()[i], beyond ? 0 : 1 + nearest) << "voxel " << i;
    }
  }
}

TEST(AugmentVolume, ShiftsEveryVoxelAlikeAndLabelsWithThem) {
  TestBench bench;
  const int64_t batch = 300;
  const double most = 1.5;
  const Shape grid{9, 8, 10};
  const auto out =
      augment_volume(bench.ctx, coordinates(bench, batch, grid), voxel_numbers(bench, batch, grid), {.shift = most}, RngKey{6});
  std::array<double, 3> sum{}, squares{};
  for (int64_t b = 0; b < batch; ++b) {
    const auto place = place_of(out.volumes.at(b), (4 * grid[1] + 4) * grid[2] + 4);
    const std::array<double, 3> moved{place[0] - 4, place[1] - 4, place[2] - 4};
    for (size_t axis = 0; axis < 3; ++axis) {
      EXPECT_LE(std::abs(moved[axis]), most + 1e-5);
      sum[axis] += moved[axis];
      squares[axis] += moved[axis] * moved[axis];
    }
    SCOPED_TRACE(b);
    expect_shifted(out.volumes.at(b), out.labels.at(b), grid, moved);
  }
  for (size_t axis = 0; axis < 3; ++axis) {
    EXPECT_NEAR(sum[axis] / batch, 0, 5 * most / std::sqrt(3.0 * batch));
    EXPECT_NEAR(squares[axis] / batch, most * most / 3, 5 * 0.3 * most * most / std::sqrt(batch));
  }
}

/// The columns of a map's matrix: how the place moves with x, y and z, measured in the middle of `image`.
std::array<std::array<double, 3>, 3> steps_of(const Tensor& image, const Shape& grid) {
  const std::array<int64_t, 3> stride{1, grid[2], grid[2] * grid[1]};
  const int64_t middle = (grid[0] / 2 * grid[1] + grid[1] / 2) * grid[2] + grid[2] / 2;
  std::array<std::array<double, 3>, 3> steps{};
  for (size_t j = 0; j < 3; ++j) {
    const auto up = place_of(image, middle + 3 * stride[j]), down = place_of(image, middle - 3 * stride[j]);
    for (size_t i = 0; i < 3; ++i) steps[j][i] = (up[i] - down[i]) / 6;
  }
  return steps;
}

double dot(const std::array<double, 3>& a, const std::array<double, 3>& b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

TEST(AugmentVolume, TurnsAndScalesAroundTheMiddle) {
  TestBench bench;
  const int64_t batch = 200;
  const Shape grid{21, 21, 21};
  const double degrees = 20, scale = 0.25;
  const Tensor source = coordinates(bench, batch, grid);
  const Tensor turned = augment_volume(bench.ctx, source, {}, {.rotate = degrees}, RngKey{7}).volumes;
  const Tensor scaled = augment_volume(bench.ctx, source, {}, {.scale = scale}, RngKey{7}).volumes;
  double widest_turn = 0, smallest = 9, largest = 0;
  for (int64_t b = 0; b < batch; ++b) {
    for (const Tensor& image : {turned.at(b), scaled.at(b)})
      for (double p : place_of(image, (10 * 21 + 10) * 21 + 10)) ASSERT_NEAR(p, 10, 1e-4);
    const auto r = steps_of(turned.at(b), grid), s = steps_of(scaled.at(b), grid);
    for (size_t j = 0; j < 3; ++j)
      for (size_t k = 0; k < 3; ++k) {
        ASSERT_NEAR(dot(r[j], r[k]), j == k, 1e-4) << "not a rotation";
        ASSERT_NEAR(s[j][k], j == k ? s[0][0] : 0, 1e-4) << "not a scaling";
      }
    const double trace = r[0][0] + r[1][1] + r[2][2];
    widest_turn = std::max(widest_turn, std::acos(std::min(1.0, (trace - 1) / 2)) * 180 / std::numbers::pi);
    smallest = std::min(smallest, s[0][0]);
    largest = std::max(largest, s[0][0]);
    const double handed =
        dot(r[0], {r[1][1] * r[2][2] - r[1][2] * r[2][1], r[1][2] * r[2][0] - r[1][0] * r[2][2], r[1][0] * r[2][1] - r[1][1] * r[2][0]});
    ASSERT_NEAR(handed, 1, 1e-3) << "a mirror image";
  }
  EXPECT_GT(widest_turn, degrees);  // three turns together
  EXPECT_LT(widest_turn, degrees * std::sqrt(3.0) + 1);
  EXPECT_GE(smallest, 1 / (1 + scale) - 1e-4);
  EXPECT_LT(smallest, 1 / (1 + scale) + 0.02);
  EXPECT_LE(largest, 1 + scale + 1e-4);
  EXPECT_GT(largest, 1 + scale - 0.02);
}

TEST(AugmentVolume, LabelsAreThoseOfTheNearestVoxelUnderAnyMap) {
  TestBench bench;
  const int64_t batch = 20;
  const Shape grid{11, 12, 13};
  const VolumeAugment all{.shift = 1, .rotate = 15, .scale = 0.1, .flip = true};
  const auto out = augment_volume(bench.ctx, coordinates(bench, batch, grid), voxel_numbers(bench, batch, grid), all, RngKey{8});
  int64_t checked = 0;
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t i = 0; i < grid.numel(); ++i) {
      const auto place = place_of(out.volumes.at(b), i);
      const int32_t label = out.labels.at(b).data<int32_t>()[i] - 1;
      bool inside = label >= 0;
      for (size_t a = 0; a < 3; ++a)
        inside = inside && place[a] > 0.1 && place[a] < static_cast<double>(grid[2 - static_cast<int>(a)]) - 1.1;
      if (!inside) continue;
      const std::array<int64_t, 3> voxel{label % grid[2], label / grid[2] % grid[1], label / grid[2] / grid[1]};
      bool whole = true;  // between the outermost voxels and what is beyond them, places are not read off exactly
      for (size_t a = 0; a < 3; ++a) whole = whole && voxel[a] > 0 && voxel[a] < grid[2 - static_cast<int>(a)] - 1;
      for (size_t a = 0; a < 3 && whole; ++a) ASSERT_LE(std::abs(place[a] - static_cast<double>(voxel[a])), 0.5 + 1e-4);
      checked += whole;
    }
  EXPECT_GT(checked, batch * 500);
}

TEST(AugmentVolume, GainAndGammaAreOneNumberAVolume) {
  TestBench bench;
  const int64_t batch = 300;
  const Tensor volumes = bench.ctx.empty({batch, 1, 1, 2, 2}, DType::f32);
  for (int64_t b = 0; b < batch; ++b) std::ranges::copy(std::array{0.0f, 1.0f, 4.0f, -2.0f}, volumes.at(b).data<float>());
  const Tensor gained = augment_volume(bench.ctx, volumes, {}, {.gain = 0.5}, RngKey{9}).volumes;
  const Tensor curved = augment_volume(bench.ctx, volumes, {}, {.gamma = 0.5}, RngKey{9}).volumes;
  double gain_logs = 0, gamma_logs = 0, gain_least = 9, gamma_most = 0;
  for (int64_t b = 0; b < batch; ++b) {
    const float *g = gained.at(b).data<float>(), *c = curved.at(b).data<float>();
    EXPECT_EQ(g[0], 0);
    EXPECT_FLOAT_EQ(g[2], 4 * g[1]);
    EXPECT_FLOAT_EQ(g[3], -2 * g[1]);
    EXPECT_EQ(c[0], 0);
    EXPECT_EQ(c[1], 1);
    const double gamma = std::log2(c[2]) / 2;
    EXPECT_NEAR(c[3], -std::pow(2, gamma), 1e-5);
    for (double factor : {static_cast<double>(g[1]), gamma}) EXPECT_TRUE(factor > 1 / 1.5 - 1e-5 && factor < 1.5 + 1e-5) << factor;
    gain_logs += std::log(g[1]), gamma_logs += std::log(gamma);
    gain_least = std::min<double>(gain_least, g[1]), gamma_most = std::max(gamma_most, gamma);
  }
  const double five_errors = 5 * std::log(1.5) / std::sqrt(3.0 * batch);
  EXPECT_NEAR(gain_logs / batch, 0, five_errors);
  EXPECT_NEAR(gamma_logs / batch, 0, five_errors);
  EXPECT_LT(gain_least, 0.7);
  EXPECT_GT(gamma_most, 1.45);
}

TEST(AugmentVolume, TheFieldIsAPolynomialOfSecondDegree) {
  TestBench bench;
  const Shape grid{7, 8, 9};
  const int64_t batch = 20;
  const double bias = 0.3;
  const Tensor ones = bench.ctx.empty(joined({batch, 2}, grid), DType::f32);
  fill(ones, 1);
  const Tensor out = augment_volume(bench.ctx, ones, {}, {.bias = bias}, RngKey{10}).volumes;
  std::set<float> corners;
  for (int64_t b = 0; b < batch; ++b) {
    const float* field = out.at(b).data<float>();
    corners.insert(field[0]);
    double mean = 0, spread = 0;
    for (int64_t i = 0; i < grid.numel(); ++i) {
      EXPECT_EQ(field[i], field[grid.numel() + i]) << "channels share it";
      const double log = std::log(field[i]);
      mean += log / static_cast<double>(grid.numel());
      spread = std::max(spread, std::abs(log));
    }
    EXPECT_LE(spread, bias * (3 + 3 * 2.0 / 3 + 3));
    EXPECT_GT(spread, 0.01 * bias);
    EXPECT_LT(std::abs(mean), bias * 3 * 0.12);  // at 7 voxels a side the mean of u² is 0.44, not a third
    for (auto [stride, n] : {std::pair<int64_t, int64_t>{1, grid[2]}, {grid[2], grid[1]}, {grid[2] * grid[1], grid[0]}})
      for (int64_t i = 0; i < grid.numel(); ++i) {
        if (i / stride % n + 3 >= n) continue;
        const auto log = [&](int64_t k) { return std::log(static_cast<double>(field[i + k * stride])); };
        ASSERT_NEAR(log(3) - 3 * log(2) + 3 * log(1) - log(0), 0, 5e-6) << "a third difference";
      }
  }
  EXPECT_EQ(std::ssize(corners), batch);
}

TEST(AugmentVolume, NoiseStaysInTheHead) {
  TestBench bench;
  const Shape grid{12, 12, 12};
  const int64_t batch = 60, channels = 2;
  const double noise = 0.2;
  const Tensor volumes = heads(bench.ctx, batch, channels, grid);
  const Tensor out = augment_volume(bench.ctx, volumes, {}, {.noise = noise}, RngKey{11}).volumes;
  double largest = 0, mean_deviation = 0;
  for (int64_t b = 0; b < batch; ++b) {
    const float *was = volumes.at(b).data<float>(), *now = out.at(b).data<float>();
    double sum = 0, squares = 0, both = 0;
    int64_t count = 0;
    const int64_t size = grid.numel();
    for (int64_t i = 0; i < channels * size; ++i) {
      if (was[i] == 0) {
        ASSERT_EQ(now[i], 0);
        continue;
      }
      const double d = now[i] - was[i];
      sum += d, squares += d * d, ++count;
      if (i < size) both += d * (now[size + i] - was[size + i]);
    }
    const auto n = static_cast<double>(count);
    const double deviation = std::sqrt(squares / n);
    EXPECT_LE(deviation, noise * 1.1);
    EXPECT_LE(std::abs(sum / n), 5 * deviation / std::sqrt(n));
    EXPECT_LE(std::abs(both / (n / 2)), 5 * deviation * deviation / std::sqrt(n / 2)) << "channels draw their own";
    largest = std::max(largest, deviation);
    mean_deviation += deviation / static_cast<double>(batch);
  }
  EXPECT_GT(largest, 0.85 * noise);
  EXPECT_NEAR(mean_deviation, noise / 2, 5 * noise / std::sqrt(12.0 * static_cast<double>(batch)));
}

const VolumeAugment everything{.shift = 2, .rotate = 12, .scale = 0.1, .flip = true, .gain = 0.2, .gamma = 0.2, .bias = 0.2, .noise = 0.05};

TEST(AugmentVolume, AVolumeDoesNotDependOnTheRestOfTheBatchOnRanksOrOnThreads) {
  TestBench bench;
  const Shape grid{17, 18, 19};
  const Tensor volumes = heads(bench.ctx, 9, 1, grid), numbers = voxel_numbers(bench, 9, grid);
  const int before = omp_get_max_threads();
  std::vector<VolumesAndLabels> runs;
  for (int threads : {1, 2, 5}) {
    omp_set_num_threads(threads);
    runs.push_back(augment_volume(bench.ctx, volumes, numbers, everything, RngKey{12}));
  }
  omp_set_num_threads(before);
  for (const auto& run : runs) {
    EXPECT_EQ(to_vector<float>(run.volumes), to_vector<float>(runs[0].volumes));
    EXPECT_EQ(to_vector<int32_t>(run.labels), to_vector<int32_t>(runs[0].labels));
  }
  ExecContext rank = bench.ctx;
  rank.part = {.first = 4, .count = 5, .total = 9};
  const auto part = augment_volume(rank, volumes.slice(4, 9), numbers.slice(4, 9), everything, RngKey{12});
  EXPECT_EQ(to_vector<float>(part.volumes), to_vector<float>(runs[0].volumes.slice(4, 9)));
  EXPECT_EQ(to_vector<int32_t>(part.labels), to_vector<int32_t>(runs[0].labels.slice(4, 9)));
  EXPECT_NE(to_vector<float>(augment_volume(bench.ctx, volumes, {}, everything, RngKey{13}).volumes), to_vector<float>(runs[0].volumes));
}

TEST(AugmentVolume, TakesAnEmptyBatch) {
  TestBench bench;
  const auto out = augment_volume(bench.ctx, bench.ctx.empty({0, 1, 4, 4, 4}, DType::f32), bench.ctx.empty({0, 4, 4, 4}, DType::i32),
                                  everything, RngKey{});
  EXPECT_EQ(out.volumes.shape(), (Shape{0, 1, 4, 4, 4}));
  EXPECT_EQ(out.labels.shape(), (Shape{0, 4, 4, 4}));
}

#if defined(ERMOE_WITH_CUDA)
/// Places are whole numbers: labels are the same. Values are rounded by another order of multiplications and additions.
void expect_gpu_agrees() {
  TestBench cpu;
  GpuBench gpu;
  for (const Shape& grid : {Shape{1, 1, 1}, Shape{5, 7, 6}, Shape{31, 33, 37}})
    for (const VolumeAugment& settings : {VolumeAugment{}, everything}) {
      const Tensor volumes = heads(cpu.ctx, 7, 2, grid), numbers = voxel_numbers(cpu, 7, grid);
      const auto want = augment_volume(cpu.ctx, volumes, numbers, settings, RngKey{14});
      const auto got = augment_volume(gpu.ctx, to_device(gpu.ctx, volumes), to_device(gpu.ctx, numbers), settings, RngKey{14});
      EXPECT_EQ(to_vector<int32_t>(got.labels), to_vector<int32_t>(want.labels));
      EXPECT_LE(normalised_error(to_doubles(got.volumes), to_doubles(want.volumes)), 1e-9);
      const auto alone = augment_volume(gpu.ctx, to_device(gpu.ctx, volumes), {}, settings, RngKey{14});
      EXPECT_EQ(to_vector<float>(alone.volumes), to_vector<float>(got.volumes));
    }
  const Tensor none = gpu.ctx.empty({0, 1, 4, 4, 4}, DType::f32);
  EXPECT_EQ(augment_volume(gpu.ctx, none, {}, everything, RngKey{}).volumes.shape(), (Shape{0, 1, 4, 4, 4}));
}

TEST(AugmentVolume, OnAGpuAgrees) { ERMOE_NEEDS_GPU(expect_gpu_agrees()); }
#endif

TEST(AugmentVolume, WrongInputsAreRefused) {
  TestBench bench;
  const auto run = [&](const Shape& shape, DType dtype, const VolumeAugment& settings, const Tensor& labels = {}) {
    return
        [&bench, shape, dtype, settings, labels] { augment_volume(bench.ctx, bench.ctx.empty(shape, dtype), labels, settings, RngKey{}); };
  };
  expect_error(run({2, 4, 5, 3}, DType::f32, {}), {"[augment_volume]", "(2, 4, 5, 3)"});
  expect_error(run({2, 1, 4, 5, 3}, DType::u8, {}), {"[augment_volume]", "u8"});
  expect_error([&] { augment_volume(bench.ctx, Tensor(), {}, {}, RngKey{}); }, {"[augment_volume]"});
  expect_error(run({2, 1, 4, 5, 3}, DType::f32, {}, bench.ctx.empty({2, 4, 5, 4}, DType::i32)), {"(2, 1, 4, 5, 3)", "(2, 4, 5, 4)"});
  expect_error(run({2, 1, 4, 5, 3}, DType::f32, {}, bench.ctx.empty({2, 4, 5, 3}, DType::u8)), {"[augment_volume]", "labels", "u8"});
  expect_error(run({2, 1, 4, 5, 3}, DType::f32, {.shift = -1}), {"[augment_volume]", "shift", "-1"});
  expect_error(run({2, 1, 4, 5, 3}, DType::f32, {.rotate = 181}), {"rotate", "181"});
  expect_error(run({2, 1, 4, 5, 3}, DType::f32, {.scale = std::nan("")}), {"scale", "nan"});
  expect_error(run({2, 1, 4, 5, 3}, DType::f32, {.noise = INFINITY}), {"noise"});
}

}  // namespace
}  // namespace ermoe::testing
