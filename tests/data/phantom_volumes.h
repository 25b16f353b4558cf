// Volumes of deformed regions, counted apart from how data/phantom.cpp integrates them.
#pragma once

#include "core/rng.h"
#include "data/phantom_field.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

namespace ermoe::testing {

/// Logarithms of the regions' volumes where `backward` leads to the template, at one random place in each cube of 1.5 mm: regular places
/// would count the voxels' steps along the axes wrongly.
inline std::vector<double> sampled_log_volumes(const Lattice& fine, const std::vector<float>& labels, size_t regions,
                                               const VectorField& backward) {
  const double cube = 1.5;
  std::array<int64_t, 3> cubes{};
  for (size_t a = 0; a < 3; ++a) cubes[a] = static_cast<int64_t>(static_cast<double>(fine.size[a] - 1) * fine.step / cube);
  std::vector<double> counts(regions + 1, 0.0);
  for (int64_t p = 0; p < cubes[0] * cubes[1] * cubes[2]; ++p) {
    const std::array<int64_t, 3> at{p % cubes[0], p / cubes[0] % cubes[1], p / (cubes[0] * cubes[1])};
    const Random4 r = philox(RngKey{17}, static_cast<uint64_t>(p));
    Point3 x{};
    for (size_t a = 0; a < 3; ++a) x[a] = cube * (static_cast<double>(at[a]) + static_cast<double>(uniform(r.x[a])));
    const Point3 u = backward.at(x);
    std::array<int64_t, 3> near{};
    for (size_t a = 0; a < 3; ++a) near[a] = std::clamp<int64_t>(std::llround((x[a] + u[a]) / fine.step), 0, fine.size[a] - 1);
    counts[static_cast<size_t>(labels[static_cast<size_t>(fine.index(near[0], near[1], near[2]))])] += 1;
  }
  for (double& n : counts) n = std::log(n);
  return {counts.begin() + 1, counts.end()};
}

}  // namespace ermoe::testing
