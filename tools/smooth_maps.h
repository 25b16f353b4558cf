// Random maps that are as smooth as a given one and have its values: what chance looks like where neighbouring places are alike. The method
// and its sources stand in tools/attribution.h.
#pragma once

#include "core/rng.h"
#include "tools/region_shares.h"

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace ermoe {

/// Values at some cubes of a grid.
struct MapOnPlaces {
  MapOnPlaces(const CubeGrid& grid, double spacing_mm);

  std::array<int64_t, 3> cubes{};         // of the whole grid, x fastest
  double step_mm = 1;                     // from one cube to the next
  std::array<std::vector<double>, 3> mm;  // where cubes lie along each axis
  std::vector<int64_t> cube;              // (places) ascending
  std::vector<double> value;              // (places)
};

/// The length l in mm with which the values' ranks, taken as those of a Gaussian field, are correlated by exp(-d^2 / 2 l^2) over distance
/// d: the longest that distances of one, two and three cubes ask for, where the correlation is more than chance. A thousandth of a cube
/// where there is none. Maps count together.
double smoothness_of(std::span<const MapOnPlaces> maps);

/// The map's values, dealt out by the ranks of a random field of that length: (places). One key gives one field, whatever the places.
std::vector<double> surrogate_of(const MapOnPlaces& map, double length_mm, RngKey key);

}  // namespace ermoe
