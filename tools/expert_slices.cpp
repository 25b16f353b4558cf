#include "tools/expert_slices.h"

#include "core/error.h"
#include "data/volume_grid.h"
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
  return {{level(170 + 85 * part(0, 0.5)), level(20 + 225 * part(0.25, 1)), level(20 + 130 * part(0.7, 1))}, 0.85 * part(0, 0.6)};
}

double scaled(double value, double low, double high) { return high > low ? (value - low) / (high - low) : 0; }

/// The middle, in mm, of the cube where the map is highest inside the brain, or anywhere where that is empty.
Point3 peak_of(const MeanBrain& brain, const Volume& map, int64_t side) {
  const bool anywhere = std::ranges::none_of(brain.inside, std::identity{});
  size_t best = map.values.size();
  for (size_t v = 0; v < map.values.size(); ++v)
    if ((anywhere || brain.inside[v]) && (best == map.values.size() || map.values[v] > map.values[best])) best = v;
  const auto [nx, ny, nz] = map.grid.size;
  const auto place = static_cast<int64_t>(best);
  const std::array<int64_t, 3> voxel = {place % nx, place / nx % ny, place / (nx * ny)};
  Point3 middle{};
  for (size_t a = 0; a < 3; ++a) {
    const int64_t begin = voxel[a] / side * side, end = std::min(begin + side, map.grid.size[a]);
    middle[a] = static_cast<double>(begin + end - 1) / 2;
  }
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
