// A brain of ellipsoids with an atlas of AAL's numbers, so that tests of made-up subjects need no template.
#pragma once

#include "data/volume.h"

#include <array>
#include <cmath>
#include <cstdint>

namespace ermoe::testing {

struct MadeBrain {
  Volume brain, atlas;
};

/// Number of AAL for a place in mm from the middle; `depth` is 0 in the middle and 1 at the surface.
inline float made_brain_label(const Point3& mm, double depth) {
  const auto within = [&](const Point3& center, const Point3& radius) {
    double sum = 0;
    for (size_t a = 0; a < 3; ++a) sum += std::pow((mm[a] - center[a]) / radius[a], 2);
    return sum < 1;
  };
  if (within({-32, -12, -22}, {11, 20, 11})) return 37;  // hippocampus
  if (within({32, -12, -22}, {11, 20, 11})) return 38;
  if (within({-26, 8, 8}, {9, 14, 9}) || within({26, 8, 8}, {9, 14, 9})) return 71;    // deep grey
  if (within({-44, 14, 4}, {6, 16, 9}) || within({44, 14, 4}, {6, 16, 9})) return 29;  // insula
  if (depth < 0.72) return 0;
  if (mm[2] < -12) return mm[1] < -30 ? 91.0f : 85.0f;  // cerebellum, temporal
  if (mm[1] > 20) return 7;                             // frontal
  return mm[1] < -45 ? 51.0f : 59.0f;                   // occipital, parietal
}

/// About 140 x 170 x 130 mm, with a dark ventricle in the middle; voxels of `spacing` mm.
inline MadeBrain made_brain(double spacing) {
  constexpr Point3 radius{70, 85, 65};
  Grid grid;
  for (size_t a = 0; a < 3; ++a) {
    const auto half = static_cast<int64_t>(std::ceil((radius[a] + 14) / spacing));
    grid.size[a] = 2 * half + 1;
    grid.to_world.rows[a][a] = spacing;
    grid.to_world.rows[a][3] = -static_cast<double>(half) * spacing;
  }
  const std::vector<float> zeros(static_cast<size_t>(grid.voxels()), 0.0f);
  MadeBrain made{{grid, zeros}, {grid, zeros}};
  for (int64_t k = 0; k < grid.size[2]; ++k)
    for (int64_t j = 0; j < grid.size[1]; ++j)
      for (int64_t i = 0; i < grid.size[0]; ++i) {
        const Point3 mm = grid.to_world({static_cast<double>(i), static_cast<double>(j), static_cast<double>(k)});
        const double depth = std::hypot(mm[0] / radius[0], mm[1] / radius[1], mm[2] / radius[2]);
        if (depth >= 1) continue;
        const bool ventricle = std::hypot(mm[0] / 14, (mm[1] - 2) / 28, (mm[2] - 10) / 14) < 1;
        const float label = ventricle ? 0 : made_brain_label(mm, depth);
        made.atlas.at(i, j, k) = label;
        made.brain.at(i, j, k) = ventricle ? 30.0f : label == 0 ? 110.0f : 85.0f;
      }
  return made;
}

}  // namespace ermoe::testing
