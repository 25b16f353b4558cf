#include "tools/expert_slices.h"

#include "core/error.h"
#include "data/volume_grid.h"
#include "tools/region_shares.h"
#include "tools/slice_view.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace ermoe {
namespace {

constexpr Color kPaper{20, 22, 26}, kInk{236, 236, 232}, kSoft{150, 156, 166};
constexpr int64_t kLongest = 230;  // pixels of the window's longest side
constexpr int64_t kMargin = 20, kGap = 14, kHead = 44, kRowHead = 26, kFoot = 56, kText = 2;
constexpr size_t kMostRows = 100;
constexpr std::array<SlicePlane, 3> kPlanes = {kSagittal, kCoronal, kAxial};

struct Tone {
  Color color;
  double share = 0;  // of the colour; the rest is what lies below
};

/// From clear over red and orange to light yellow.
Tone tone_of(double t) {
  t = std::clamp(t, 0.0, 1.0);
  const auto part = [&](double from, double to) { return std::clamp((t - from) / (to - from), 0.0, 1.0); };
  const auto level = [](double v) { return static_cast<uint8_t>(std::lround(v)); };
  return {{level(170 + 85 * part(0, 0.5)), level(20 + 225 * part(0.25, 1)), level(20 + 130 * part(0.7, 1))}, 0.65 * part(0, 0.6)};
}

double scaled(double value, double low, double high) { return high > low ? (value - low) / (high - low) : 0; }

/// The middle, in mm, of the cube where the map is highest, of those that are brain by half or, where there is none, of all.
Point3 peak_of(const MeanBrain& brain, const Volume& map, int64_t side) {
  const CubeGrid cubes{map.grid.size, side};
  const std::vector<int64_t> cube_of = cubes_of_voxels(cubes);
  std::vector<int64_t> inside(static_cast<size_t>(cubes.count())), all(inside.size());
  for (size_t v = 0; v < cube_of.size(); ++v) {
    const auto cube = static_cast<size_t>(cube_of[v]);
    ++all[cube];
    inside[cube] += brain.inside[v] ? 1 : 0;
  }
  const auto counts = [&](size_t cube) { return 2 * inside[cube] >= all[cube]; };
  bool anywhere = true;
  for (size_t cube = 0; cube < all.size(); ++cube) anywhere &= !counts(cube);
  size_t best = cube_of.size();
  for (size_t v = 0; v < cube_of.size(); ++v)
    if ((anywhere || counts(static_cast<size_t>(cube_of[v]))) && (best == cube_of.size() || map.values[v] > map.values[best])) best = v;
  Point3 middle = cubes.middle_of(cube_of[best]);
  for (size_t a = 0; a < 3; ++a) middle[a] += static_cast<double>(map.grid.size[a] - 1) / 2;
  return map.grid.to_world(middle);
}

void draw_slice(Canvas& canvas, int64_t x, int64_t y, const MeanBrain& brain, const GreyScale& scale, const Volume& map, const Grid& grid,
                const SlicePlane& plane, double low, double high) {
  canvas.blit(x, y, scale.image_of(resample(brain.intensities, grid, Interpolation::linear, scale.black())));
  const Volume values = resample(map, grid, Interpolation::nearest, static_cast<float>(low));
  for (int64_t j = 0; j < grid.size[1]; ++j)
    for (int64_t i = 0; i < grid.size[0]; ++i) {
      const Tone tone = tone_of(scaled(values.at(i, j, 0), low, high));
      canvas.tint({x + i, y + j, 1, 1}, tone.color, tone.share);
    }
  canvas.frame({x, y, grid.size[0], grid.size[1]}, kSoft);
  draw_letters(canvas, x, y, grid, plane, kInk);
}

void draw_bar(Canvas& canvas, int64_t y, double low, double high, const std::string& unit) {
  constexpr int64_t width = 200, height = 16;
  const std::string from = fmt::format("{:.3g}", low);
  canvas.text(kMargin, y, from, kInk, kText);
  const int64_t x = kMargin + text_width(from, kText) + 10;
  for (int64_t i = 0; i < width; ++i) {
    const Tone tone = tone_of(static_cast<double>(i) / (width - 1));
    canvas.fill({x + i, y, 1, height}, {110, 110, 110});  // a grey that brains have
    canvas.tint({x + i, y, 1, height}, tone.color, tone.share);
  }
  canvas.frame({x, y, width, height}, kSoft);
  canvas.text(x + width + 10, y, fmt::format("{:.3g} {}", high, unit), kInk, kText);
}

}  // namespace

Image draw_maps(const MeanBrain& brain, const std::vector<MapRow>& rows, int64_t side, double low, double high, const std::string& title,
                const std::string& unit) {
  const Grid& grid = brain.intensities.grid;
  for (const MapRow& row : rows) check(row.map.grid == grid, "[slices] a map on another grid than the brain");
  const WorldBox box = box_of(grid);
  const double mm = box.longest() / static_cast<double>(kLongest);
  const size_t drawn = std::min(rows.size(), kMostRows);
  int64_t width = 2 * kMargin - kGap, tallest = 0;
  for (const SlicePlane& plane : kPlanes) {
    const Grid slice = slice_grid(plane, box, {}, mm);
    width += slice.size[0] + kGap;
    tallest = std::max(tallest, slice.size[1]);
  }
  width = std::max(width, 2 * kMargin + text_width(title, kText));
  const int64_t step = kRowHead + tallest + kGap;
  Canvas canvas(width, kHead + static_cast<int64_t>(drawn) * step + kFoot, kPaper);
  canvas.text(kMargin, 14, title, kInk, kText);
  const GreyScale scale(brain.intensities);
  for (size_t r = 0; r < drawn; ++r) {
    const int64_t y = kHead + static_cast<int64_t>(r) * step;
    const Point3 peak = peak_of(brain, rows[r].map, side);
    canvas.text(kMargin, y, fmt::format("{}  at {:.0f} {:.0f} {:.0f} mm", rows[r].title, peak[0], peak[1], peak[2]), kSoft, kText);
    int64_t x = kMargin;
    for (const SlicePlane& plane : kPlanes) {
      const Grid slice = slice_grid(plane, box, peak, mm);
      draw_slice(canvas, x, y + kRowHead, brain, scale, rows[r].map, slice, plane, low, high);
      x += slice.size[0] + kGap;
    }
  }
  draw_bar(canvas, canvas.height() - kFoot + 8, low, high, unit);
  return canvas.image();
}

}  // namespace ermoe
