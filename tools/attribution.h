// How much of a prediction rests on each region: what occlusion found, summed over subjects and told by region, and whether a region's
// part is more than that of any map as smooth as this one. Read first: tools/occlusion.h; next: tools/looks.h.
//
// Two measures. The size of the changes tells what moves a prediction, for a good reason or none: noise that a model reads moves it too.
// The slope tells what makes predictions follow the truth: by how many years the prediction of a covered subject falls behind, a year of
// true age. In a linear model the slopes of all places add up to that of the prediction itself.
//
// A null that deals the values out to places at random would be wrong: neighbouring places have like values. Each draw is a smooth random
// field over the places that are brain, given the map's own values by rank, so it has the same values and is as smooth (surrogate maps as
// of Burt et al., NeuroImage 2020). The field is a sum of cosines of random direction and phase (Rahimi and Recht, NIPS 2007), whose
// correlation falls with distance as a Gaussian; its length is the longest that the map's own correlations over one, two or three cubes
// ask for. Fields are functions of the place in mm, so that maps on different grids are drawn as one.
#pragma once

#include "core/rng.h"
#include "tools/region_shares.h"

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace ermoe {

/// Sums over subjects whose windows have one size.
struct Attribution {
  CubeGrid grid;
  double spacing = 1;           // mm
  std::vector<int64_t> labels;  // (R) ascending; empty where there are no maps of regions
  int64_t subjects = 0;
  std::vector<double> size;              // (cubes) sum of |change|
  std::vector<double> change;            // (cubes) sum of changes
  std::vector<double> voxels;            // (cubes, R) sum of the regions' voxels
  std::vector<double> by_region;         // (R) sum over subjects and voxels of |change|
  std::vector<double> change_by_region;  // (R) … of changes
  std::vector<double> whole;             // (R) sum of |change| where all of the region was covered at once
  std::vector<double> with_truth;        // (cubes) sum of changes times the true number
  double truth = 0, truth_squares = 0;   // sums of the true numbers and their squares

  Attribution(const CubeGrid& cubes, double mm, std::vector<int64_t> known_labels);
  /// A subject's true number, its changes (cubes), the voxels of its regions (cubes, R), and the changes where a whole region was covered
  /// (R).
  void add(double number, std::span<const double> changes, std::span<const double> region_counts, std::span<const double> region_changes);
  /// (cubes) how much less the prediction follows the truth where the cube is covered: minus the slope of changes over true numbers. 0
  /// where all numbers are the same.
  std::vector<double> slopes() const;
};

/// Of one region, or several together. Shares are of what is brain: of labels other than 0.
struct RegionAttribution {
  int64_t label = 0;
  double share = 0;        // of the attribution: |change| of each voxel's place, summed over the region's voxels
  double volume = 0;       // share of the voxels
  double change = 0;       // mean over the voxels, in the unit of what is predicted: covered minus uncovered
  double p = 1;            // of `share`
  double whole = 0;        // mean |change| where all of the region is covered at once; of several regions the sum over them
  double slope_share = 0;  // of the slopes' sum over the brain; below 0 where covering the region helps
  double slope_p = 1;      // of that

  double ratio() const { return volume > 0 ? share / volume : 0; }
  double slope_ratio() const { return volume > 0 ? slope_share / volume : 0; }
};

struct AttributionReport {
  std::vector<RegionAttribution> regions;    // each label but 0
  std::optional<RegionAttribution> planted;  // those together
  double background = 0;                     // share of all attribution that falls on label 0
  double smoothness_mm = 0;                  // of the null's fields
};

/// Of one or several parts, each of its own subjects; `planted` is ascending and may be empty. p compares, for the mean map and the mean
/// share of each region at each place, with `draws` random maps.
AttributionReport attribution_report(std::span<const Attribution> parts, const std::vector<int64_t>& planted, int64_t draws, RngKey key);

}  // namespace ermoe
