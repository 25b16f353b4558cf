// A brain of ellipsoids: cortex, white matter, ventricles, nuclei and cerebellum, unlike from left to right so that no turn fits twice.
#pragma once

#include "data/volume.h"

#include <array>
#include <cmath>

namespace ermoe::testing {

/// (72, 84, 72) voxels of 2.5 mm in RAS, nothing outside of the brain; soft borders, as partial volumes make them.
inline Volume head_phantom() {
  struct Ellipsoid {
    Point3 centre, half;  // mm
    double value;
  };
  static constexpr std::array<Ellipsoid, 10> parts = {{{{0, 0, 0}, {66, 82, 60}, 0.6},
                                                       {{-31, 2, 6}, {26, 66, 42}, 1.0},
                                                       {{31, 2, 6}, {26, 62, 44}, 1.0},
                                                       {{-11, 4, 10}, {6, 30, 12}, 0.2},
                                                       {{12, 2, 9}, {7, 28, 10}, 0.2},
                                                       {{-24, 6, -4}, {9, 15, 10}, 0.65},
                                                       {{25, 4, -3}, {10, 13, 9}, 0.7},
                                                       {{-22, -56, -34}, {22, 18, 15}, 0.75},
                                                       {{20, -58, -36}, {20, 16, 14}, 0.85},
                                                       {{34, 40, 12}, {10, 8, 14}, 0.3}}};
  Volume v;
  v.grid.size = {72, 84, 72};
  for (size_t a = 0; a < 3; ++a) {
    v.grid.to_world.rows[a][a] = 2.5;
    v.grid.to_world.rows[a][3] = -2.5 * 0.5 * static_cast<double>(v.grid.size[a] - 1);
  }
  v.values.resize(static_cast<size_t>(v.grid.voxels()));
  for (int64_t k = 0; k < v.grid.size[2]; ++k)
    for (int64_t j = 0; j < v.grid.size[1]; ++j)
      for (int64_t i = 0; i < v.grid.size[0]; ++i) {
        const Point3 x = v.grid.to_world({static_cast<double>(i), static_cast<double>(j), static_cast<double>(k)});
        double value = 0;
        for (const Ellipsoid& e : parts) {
          const double r = std::hypot((x[0] - e.centre[0]) / e.half[0], (x[1] - e.centre[1]) / e.half[1], (x[2] - e.centre[2]) / e.half[2]);
          const double inside = 1 / (1 + std::exp((r - 1) * e.half[0] / 0.8));
          value += inside * (e.value - value);
        }
        v.at(i, j, k) = static_cast<float>(value < 1e-3 ? 0 : value);
      }
  return v;
}

}  // namespace ermoe::testing
