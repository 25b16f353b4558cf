#include "data/align.h"

#include "core/error.h"
#include "data/align_measure.h"
#include "data/volume_levels.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace ermoe {
namespace {

constexpr int64_t kMostSamples = 200000;  // of a level: more are slower, not better
constexpr double kMargin = 10;            // mm of background around the fixed foreground that count
constexpr int64_t kMostSteps = 60, kMostRejections = 4;
constexpr int64_t kStarts = 6;
constexpr double kRadius = 70;  // mm, of a head: how far a step moves its surface tells whether it still matters

/// The 12 parameters of MeasureSlope as combinations of the model's own: rotations about x, y, z, shifts, a scale; or all 12.
std::vector<std::array<double, 12>> directions(AlignModel model) {
  std::vector<std::array<double, 12>> d;
  const auto unit = [](std::initializer_list<std::pair<size_t, double>> entries) {
    std::array<double, 12> e{};
    for (const auto& [i, v] : entries) e[i] = v;
    return e;
  };
  if (model == AlignModel::affine) {
    for (size_t i = 0; i < 12; ++i) d.push_back(unit({{i, 1}}));
    return d;
  }
  d = {unit({{5, -1}, {7, 1}}), unit({{2, 1}, {6, -1}}), unit({{1, -1}, {3, 1}}), unit({{9, 1}}), unit({{10, 1}}), unit({{11, 1}})};
  if (model == AlignModel::similarity) d.push_back(unit({{0, 1}, {4, 1}, {8, 1}}));
  return d;
}

/// Rotation about an axis through the origin by the vector's length in radians, after Rodrigues.
Affine rotation(const Point3& turn) {
  const double angle = std::hypot(turn[0], turn[1], turn[2]);
  Affine r;
  if (angle == 0) return r;
  const Point3 k = {turn[0] / angle, turn[1] / angle, turn[2] / angle};
  const double c = std::cos(angle), s = std::sin(angle);
  const std::array<Point3, 3> cross = {{{0, -k[2], k[1]}, {k[2], 0, -k[0]}, {-k[1], k[0], 0}}};
  for (size_t i = 0; i < 3; ++i)
    for (size_t j = 0; j < 3; ++j) r.rows[i][j] = (i == j ? c : 0) + s * cross[i][j] + (1 - c) * k[i] * k[j];
  return r;
}

/// `linear` about a centre, then a shift.
Affine about(const Affine& linear, const Point3& centre, const Point3& shift) {
  Affine a = linear;
  for (size_t r = 0; r < 3; ++r) {
    a.rows[r][3] = centre[r] + shift[r];
    for (size_t c = 0; c < 3; ++c) a.rows[r][3] -= linear.rows[r][c] * centre[c];
  }
  return a;
}

/// The move that a step along the model's directions stands for. Rigid ones stay rigid to the last bit but rounding.
Affine move_of(AlignModel model, const std::vector<double>& step, const Point3& centre) {
  Affine linear;
  if (model == AlignModel::affine) {
    for (size_t r = 0; r < 3; ++r)
      for (size_t c = 0; c < 3; ++c) linear.rows[r][c] += step[3 * r + c];
    return about(linear, centre, {step[9], step[10], step[11]});
  }
  linear = rotation({step[0], step[1], step[2]});
  if (model == AlignModel::similarity)
    for (auto& row : linear.rows)
      for (size_t c = 0; c < 3; ++c) row[c] *= std::exp(step[6]);
  return about(linear, centre, {step[3], step[4], step[5]});
}

/// How far a move takes points on a head around `centre`, in mm: the largest over six of them.
double reach(const Affine& move, const Point3& centre) {
  double most = 0;
  for (size_t a = 0; a < 3; ++a) {
    for (const double side : {-kRadius, kRadius}) {
      Point3 p = centre;
      p[a] += side;
      const Point3 q = move(p);
      most = std::max(most, std::hypot(q[0] - p[0], q[1] - p[1], q[2] - p[2]));
    }
  }
  return most;
}

/// Solves a symmetric positive system by Cholesky's factors, with a hair added to the diagonal.
std::vector<double> solve(std::vector<std::vector<double>> a, std::vector<double> b) {
  const size_t n = b.size();
  for (size_t i = 0; i < n; ++i) a[i][i] += 1e-9 * a[i][i] + 1e-30;
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j <= i; ++j) {
      double sum = a[i][j];
      for (size_t k = 0; k < j; ++k) sum -= a[i][k] * a[j][k];
      a[i][j] = i == j ? std::sqrt(std::max(sum, 1e-30)) : sum / a[j][j];
    }
    for (size_t k = 0; k < i; ++k) b[i] -= a[i][k] * b[k];
    b[i] /= a[i][i];
  }
  for (size_t i = n; i-- > 0;) {
    for (size_t k = i + 1; k < n; ++k) b[i] -= a[k][i] * b[k];
    b[i] /= a[i][i];
  }
  return b;
}

struct Newton {
  std::vector<double> step;
  double gain = 0;  // of the measure along the step, by its slope alone
};

Newton newton_step(const MeasureSlope& slope, const std::vector<std::array<double, 12>>& dirs) {
  const size_t n = dirs.size();
  std::vector<double> g(n, 0);
  std::vector<std::vector<double>> h(n, std::vector<double>(n, 0));
  for (size_t i = 0; i < n; ++i) {
    std::array<double, 12> hd{};
    for (size_t r = 0; r < 12; ++r) {
      g[i] += dirs[i][r] * slope.gradient[r];
      for (size_t c = 0; c < 12; ++c) hd[r] += slope.curvature[r][c] * dirs[i][c];
    }
    for (size_t j = 0; j < n; ++j)
      for (size_t r = 0; r < 12; ++r) h[j][i] += dirs[j][r] * hd[r];
  }
  Newton out{solve(h, g), 0};
  for (size_t i = 0; i < n; ++i) out.gain += g[i] * out.step[i];
  return out;
}

struct Climb {
  Affine transform;
  double value = 0;
  int64_t steps = 0;
};

/// Climbs from `at` until steps move a head's surface by less than `tolerance` mm. The curvature of a measure is right up to a factor:
/// each step is scaled by what the one before showed of it.
Climb climb(const Measure& measure, AlignModel model, const Point3& fixed_centre, double tolerance, Climb at) {
  const auto dirs = directions(model);
  double scale = 1;
  int64_t rejections = 0;
  Point3 centre = at.transform(fixed_centre);
  MeasureSlope slope = measure.slope(at.transform, centre);
  at.value = slope.value;
  for (int64_t round = 0; round < kMostSteps && rejections < kMostRejections; ++round) {
    Newton newton = newton_step(slope, dirs);
    for (double& s : newton.step) s *= scale;
    const double rise = newton.gain * scale;
    const Affine move = move_of(model, newton.step, centre);
    const Affine next = move.after(at.transform);
    if (!(rise > 0) || !std::isfinite(reach(move, centre))) break;
    if (reach(move, centre) > 1.2 * kRadius) {
      scale /= 4;
      continue;
    }
    const double value = measure.value(next);
    // A parabola through both values with the slope at the first has its top at this share of the step.
    const double bend = 2 * (rise - (value - at.value)), top = bend > 0 ? rise / bend : 4;
    if (value > at.value) {
      rejections = 0;
      at.transform = next;
      at.steps += 1;
      scale *= std::clamp(top, 0.5, 2.0);
      if (reach(move, centre) < tolerance) break;
      centre = at.transform(fixed_centre);
      slope = measure.slope(at.transform, centre);
      at.value = slope.value;
    } else {
      if (reach(move, centre) < tolerance) break;
      rejections += 1;
      scale *= std::clamp(top, 0.1, 0.5);
    }
  }
  return at;
}

/// The rigid start: foreground on foreground, turned by every combination of -30, -15, 0, 15 and 30 degrees; the best few are climbed, and
/// the unturned one always.
Climb find_start(const Measure& measure, const Point3& fixed_centre, const Point3& moving_centre, double tolerance) {
  const Point3 shift = {moving_centre[0] - fixed_centre[0], moving_centre[1] - fixed_centre[1], moving_centre[2] - fixed_centre[2]};
  std::vector<Climb> starts;
  constexpr double kStep = 15 * std::numbers::pi / 180;
  for (int64_t i = 0; i < 125; ++i) {
    const Point3 turn = {static_cast<double>(i % 5 - 2) * kStep, static_cast<double>(i / 5 % 5 - 2) * kStep,
                         static_cast<double>(i / 25 - 2) * kStep};
    const Affine rot = rotation({0, 0, turn[2]}).after(rotation({0, turn[1], 0})).after(rotation({turn[0], 0, 0}));
    const Affine start = about(rot, fixed_centre, shift);
    starts.push_back({start, measure.value(start), 0});
  }
  std::swap(starts[0], starts[62]);  // unturned
  std::ranges::stable_sort(starts.begin() + 1, starts.end(), std::greater<>(), &Climb::value);
  Climb best;
  int64_t steps = 0;
  for (int64_t i = 0; i <= kStarts; ++i) {
    const Climb found = climb(measure, AlignModel::rigid, fixed_centre, tolerance, starts[static_cast<size_t>(i)]);
    steps += found.steps;
    if (i == 0 || found.value > best.value) best = found;
  }
  best.steps = steps;
  return best;
}

}  // namespace

std::string alignment_fault(const Volume& volume) {
  const auto& n = volume.grid.size;
  if (std::min({n[0], n[1], n[2]}) < 4) return fmt::format("is only {} x {} x {} voxels large", n[0], n[1], n[2]);
  const auto bad = std::ranges::count_if(volume.values, [](float v) { return !std::isfinite(v); });
  if (bad > 0) return fmt::format("holds {} values that are not finite", bad);
  const auto [low, high] = std::ranges::minmax_element(volume.values);
  if (*low == *high) return fmt::format("is constant: every voxel is {}", *low);
  return "";
}

Alignment align(const Volume& moving, const Volume& fixed, const AlignOptions& options) {
  check(alignment_fault(moving).empty(), "[align] the moving volume {}", alignment_fault(moving));
  check(alignment_fault(fixed).empty(), "[align] the fixed volume {}", alignment_fault(fixed));
  const std::vector<Volume> fixed_levels = coarser_copies(fixed, options.levels), moving_levels = coarser_copies(moving, options.levels);
  const Point3 fixed_centre = find_foreground(fixed, foreground_threshold(fixed)).centre;
  const Point3 moving_centre = find_foreground(moving, foreground_threshold(moving)).centre;
  Climb at;
  for (size_t l = 0; l < options.levels.size(); ++l) {
    const Volume& level = fixed_levels[l];
    const FixedSamples samples = sample_fixed(level, foreground_threshold(level), kMargin, kMostSamples);
    const auto measure = make_measure(options.measure, samples, moving_levels[l]);
    const double tolerance = 0.01 * options.levels[l];
    if (l == 0) {
      at = find_start(*measure, fixed_centre, moving_centre, 10 * tolerance);
      if (options.model == AlignModel::affine) at = climb(*measure, AlignModel::similarity, fixed_centre, tolerance, at);
    }
    at = climb(*measure, options.model, fixed_centre, tolerance, at);
  }
  return {at.transform, at.value, at.steps};
}

Grid aligned_grid(const Grid& moving, const Affine& to_moving) { return {moving.size, to_moving.inverse().after(moving.to_world)}; }

}  // namespace ermoe
