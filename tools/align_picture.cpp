#include "tools/align_picture.h"

#include "data/align.h"
#include "data/volume_grid.h"
#include "data/volume_levels.h"
#include "tools/slice_view.h"

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

constexpr std::array<SlicePlane, 3> kPlanes = {kAxial, kCoronal, kSagittal};

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

}  // namespace

Image draw_alignment(const Volume& fixed, const Volume& moving, const Affine& to_moving, const std::string& title) {
  const WorldBox box = box_of(fixed.grid);
  const double mm = box.longest() / static_cast<double>(kLongest);
  const float threshold = foreground_threshold(fixed);
  const Point3 through = find_foreground(fixed, threshold).centre;
  const GreyScale fixed_scale(fixed), moving_scale(moving);
  const Volume after{aligned_grid(moving.grid, to_moving), moving.values};
  constexpr std::array<std::string_view, 4> heads = {"template", "before", "after", "by turns"};
  constexpr int64_t column = kLongest + kGap;
  int64_t height = kHead + kMargin;
  for (const SlicePlane& plane : kPlanes) height += slice_grid(plane, box, through, mm).size[1] + kGap;
  Canvas canvas(2 * kMargin + 4 * column - kGap, height, kPaper);
  canvas.text(kMargin, 12, title, kInk, kText);
  for (size_t c = 0; c < heads.size(); ++c) canvas.text(kMargin + static_cast<int64_t>(c) * column, 38, heads[c], kSoft, kText);
  int64_t y = kHead;
  for (const SlicePlane& plane : kPlanes) {
    const Grid grid = slice_grid(plane, box, through, mm);
    const Volume slice = resample(fixed, grid, Interpolation::linear, fixed_scale.black());
    const Image still = fixed_scale.image_of(slice);
    const Image there = moving_scale.image_of(resample(moving, grid, Interpolation::linear, moving_scale.black()));
    const Image here = moving_scale.image_of(resample(after, grid, Interpolation::linear, moving_scale.black()));
    const std::array<Image, 4> panes = {still, there, here, checkerboard(still, here)};
    for (size_t c = 0; c < panes.size(); ++c) {
      const int64_t x = kMargin + static_cast<int64_t>(c) * column;
      canvas.blit(x, y, panes[c]);
      if (c == 1 || c == 2) draw_outline(canvas, x, y, slice, threshold);
      canvas.frame({x, y, grid.size[0], grid.size[1]}, kSoft);
      draw_letters(canvas, x, y, grid, plane, kInk);
    }
    y += grid.size[1] + kGap;
  }
  return canvas.image();
}

}  // namespace ermoe
