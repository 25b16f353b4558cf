#include "tools/slice_view.h"

#include <algorithm>
#include <cmath>

namespace ermoe {

double WorldBox::longest() const { return std::max({high[0] - low[0], high[1] - low[1], high[2] - low[2]}); }

WorldBox box_of(const Grid& grid) {
  WorldBox box{{1e30, 1e30, 1e30}, {-1e30, -1e30, -1e30}};
  for (int corner = 0; corner < 8; ++corner) {
    Point3 voxel{};
    for (size_t a = 0; a < 3; ++a) voxel[a] = (corner >> a & 1) != 0 ? static_cast<double>(grid.size[a]) - 0.5 : -0.5;
    const Point3 at = grid.to_world(voxel);
    for (size_t a = 0; a < 3; ++a) box.low[a] = std::min(box.low[a], at[a]), box.high[a] = std::max(box.high[a], at[a]);
  }
  return box;
}

Grid slice_grid(const SlicePlane& plane, const WorldBox& box, const Point3& through, double mm) {
  Grid grid;
  const size_t across = plane.across();
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

GreyScale::GreyScale(const Volume& volume) {
  std::vector<float> sorted = volume.values;
  const auto place = sorted.begin() + static_cast<int64_t>(0.998 * static_cast<double>(sorted.size() - 1));
  std::nth_element(sorted.begin(), place, sorted.end());
  low_ = *std::ranges::min_element(volume.values);
  high_ = *place > low_ ? *place : *std::ranges::max_element(volume.values);
}

uint8_t GreyScale::grey(float value) const {
  return static_cast<uint8_t>(std::lround(255 * std::clamp((value - low_) / std::max(high_ - low_, 1e-30f), 0.0f, 1.0f)));
}

Image GreyScale::image_of(const Volume& slice) const {
  Image image{slice.grid.size[1], slice.grid.size[0], 1, {}};
  for (const float v : slice.values) image.pixels.push_back(grey(v));
  return image;
}

void draw_letters(Canvas& canvas, int64_t x, int64_t y, const Grid& slice, const SlicePlane& plane, Color color) {
  constexpr int64_t size = 2;
  const auto put = [&](size_t i, int64_t at_x, int64_t at_y) { canvas.text(x + at_x, y + at_y, plane.letters.substr(i, 1), color, size); };
  const int64_t w = text_width("R", size), h = text_height("R", size), width = slice.size[0], height = slice.size[1];
  put(0, 3, (height - h) / 2);
  put(1, width - w - 3, (height - h) / 2);
  put(2, (width - w) / 2, 3);
  put(3, (width - w) / 2, height - h - 1);
}

}  // namespace ermoe
