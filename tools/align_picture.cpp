#include "tools/align_picture.h"

#include "data/align.h"
#include "data/volume_grid.h"
#include "data/volume_levels.h"
#include "tools/chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

namespace ermoe {
namespace {

constexpr Color kPaper{20, 22, 26}, kInk{236, 236, 232}, kSoft{150, 156, 166}, kOutline{255, 168, 40};
constexpr int64_t kLongest = 230;  // pixels of the template's longest side
constexpr int64_t kMargin = 20, kGap = 14, kHead = 64, kText = 2;
constexpr int64_t kSquare = 24;  // pixels a side, of template and result by turns

/// A plane through space: which world axis runs to the right of the picture and which one up, and their letters.
struct Plane {
  size_t right, up;
  std::string_view name, letters;  // letters: left, right, top, bottom
};
constexpr std::array<Plane, 3> kPlanes = {{{0, 1, "axial", "LRAP"}, {0, 2, "coronal", "LRSI"}, {1, 2, "sagittal", "PASI"}}};

struct Box {
  Point3 low, high;  // mm, of a grid's voxels with their outer halves
};

Box box_of(const Grid& grid) {
  Box box{{1e30, 1e30, 1e30}, {-1e30, -1e30, -1e30}};
  for (int corner = 0; corner < 8; ++corner) {
    Point3 voxel{};
    for (size_t a = 0; a < 3; ++a) voxel[a] = (corner >> a & 1) != 0 ? static_cast<double>(grid.size[a]) - 0.5 : -0.5;
    const Point3 at = grid.to_world(voxel);
    for (size_t a = 0; a < 3; ++a) box.low[a] = std::min(box.low[a], at[a]), box.high[a] = std::max(box.high[a], at[a]);
  }
  return box;
}

/// One voxel thick, its first axis to the right of the picture and its second one down.
Grid plane_grid(const Plane& plane, const Box& box, const Point3& through, double mm) {
  Grid grid;
  const size_t across = 3 - plane.right - plane.up;
  grid.size = {std::max<int64_t>(1, std::llround((box.high[plane.right] - box.low[plane.right]) / mm)),
               std::max<int64_t>(1, std::llround((box.high[plane.up] - box.low[plane.up]) / mm)), 1};
  grid.to_world.rows = {};
  grid.to_world.rows[plane.right][0] = mm;
  grid.to_world.rows[plane.right][3] = box.low[plane.right] + mm / 2;
  grid.to_world.rows[plane.up][1] = -mm;
  grid.to_world.rows[plane.up][3] = box.high[plane.up] - mm / 2;
  grid.to_world.rows[across][2] = mm;
  grid.to_world.rows[across][3] = through[across];
  return grid;
}

/// Black at `low`, white at `high`.
struct Window {
  float low, high;

  explicit Window(const Volume& volume) {
    std::vector<float> sorted = volume.values;
    const auto place = sorted.begin() + static_cast<int64_t>(0.998 * static_cast<double>(sorted.size() - 1));
    std::nth_element(sorted.begin(), place, sorted.end());
    low = *std::ranges::min_element(volume.values);
    high = *place > low ? *place : *std::ranges::max_element(volume.values);
  }
  uint8_t grey(float value) const {
    return static_cast<uint8_t>(std::lround(255 * std::clamp((value - low) / std::max(high - low, 1e-30f), 0.0f, 1.0f)));
  }
};

Image image_of(const Volume& slice, const Window& window) {
  Image image{slice.grid.size[1], slice.grid.size[0], 1, {}};
  for (const float v : slice.values) image.pixels.push_back(window.grey(v));
  return image;
}

/// Pixels of the foreground that touch the background.
void draw_outline(Canvas& canvas, int64_t x, int64_t y, const Volume& slice, float threshold) {
  const auto [width, height, one] = slice.grid.size;
  const auto inside = [&](int64_t i, int64_t j) { return i >= 0 && j >= 0 && i < width && j < height && slice.at(i, j, 0) > threshold; };
  for (int64_t j = 0; j < height; ++j)
    for (int64_t i = 0; i < width; ++i)
      if (inside(i, j) && !(inside(i - 1, j) && inside(i + 1, j) && inside(i, j - 1) && inside(i, j + 1)))
        canvas.tint({x + i, y + j, 1, 1}, kOutline, 0.85);
}

Image checkerboard(const Image& a, const Image& b) {
  Image image = a;
  for (int64_t j = 0; j < a.height; ++j)
    for (int64_t i = 0; i < a.width; ++i)
      if ((i / kSquare + j / kSquare) % 2 != 0)
        image.pixels[static_cast<size_t>(j * a.width + i)] = b.pixels[static_cast<size_t>(j * a.width + i)];
  return image;
}

void draw_letters(Canvas& canvas, int64_t x, int64_t y, const Image& image, const Plane& plane) {
  const auto put = [&](size_t i, int64_t at_x, int64_t at_y) { canvas.text(x + at_x, y + at_y, plane.letters.substr(i, 1), kInk, kText); };
  const int64_t w = text_width("R", kText), h = text_height("R", kText);
  put(0, 3, (image.height - h) / 2);
  put(1, image.width - w - 3, (image.height - h) / 2);
  put(2, (image.width - w) / 2, 3);
  put(3, (image.width - w) / 2, image.height - h - 1);
}

}  // namespace

Image draw_alignment(const Volume& fixed, const Volume& moving, const Affine& to_moving, const std::string& title) {
  const Box box = box_of(fixed.grid);
  const double longest = std::max({box.high[0] - box.low[0], box.high[1] - box.low[1], box.high[2] - box.low[2]});
  const double mm = longest / static_cast<double>(kLongest);
  const float threshold = foreground_threshold(fixed);
  const Point3 through = find_foreground(fixed, threshold).centre;
  const Window fixed_window(fixed), moving_window(moving);
  const Volume after{aligned_grid(moving.grid, to_moving), moving.values};
  constexpr std::array<std::string_view, 4> heads = {"template", "before", "after", "by turns"};
  constexpr int64_t column = kLongest + kGap;
  int64_t height = kHead + kMargin;
  for (const Plane& plane : kPlanes) height += plane_grid(plane, box, through, mm).size[1] + kGap;
  Canvas canvas(2 * kMargin + 4 * column - kGap, height, kPaper);
  canvas.text(kMargin, 12, title, kInk, kText);
  for (size_t c = 0; c < heads.size(); ++c) canvas.text(kMargin + static_cast<int64_t>(c) * column, 38, heads[c], kSoft, kText);
  int64_t y = kHead;
  for (const Plane& plane : kPlanes) {
    const Grid grid = plane_grid(plane, box, through, mm);
    const Volume slice = resample(fixed, grid, Interpolation::linear, fixed_window.low);
    const Image still = image_of(slice, fixed_window);
    const Image there = image_of(resample(moving, grid, Interpolation::linear, moving_window.low), moving_window);
    const Image here = image_of(resample(after, grid, Interpolation::linear, moving_window.low), moving_window);
    const std::array<Image, 4> panes = {still, there, here, checkerboard(still, here)};
    for (size_t c = 0; c < panes.size(); ++c) {
      const int64_t x = kMargin + static_cast<int64_t>(c) * column;
      canvas.blit(x, y, panes[c]);
      if (c == 1 || c == 2) draw_outline(canvas, x, y, slice, threshold);
      canvas.frame({x, y, grid.size[0], grid.size[1]}, kSoft);
      draw_letters(canvas, x, y, panes[c], plane);
    }
    y += grid.size[1] + kGap;
  }
  return canvas.image();
}

}  // namespace ermoe
