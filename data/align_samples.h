// What measures of alignment read: a moving volume between its voxels, and a fixed one at sampled places. Read next:
// data/align_measure.h.
#pragma once

#include "data/volume.h"

#include <array>
#include <cstdint>
#include <vector>

namespace ermoe {

/// A volume for look-ups between voxels: value and gradient (per mm of world), linearly interpolated.
class Lattice {
 public:
  explicit Lattice(const Volume& volume);

  struct Sample {
    float value = 0, gx = 0, gy = 0, gz = 0;
  };
  const Affine& to_voxel() const { return to_voxel_; }
  /// At a voxel position. False outside, unless what lies outside is known to be empty: then it is the background's value.
  bool look_up(const Point3& voxel, Sample& out) const;
  /// Smallest value, and the 99.9th percentile.
  float low() const { return low_; }
  float high() const { return high_; }

 private:
  std::array<int64_t, 3> size_{};
  Affine to_voxel_;
  bool empty_outside_ = false;
  float low_ = 0, high_ = 0;
  std::vector<Sample> samples_;  // with the border repeated once on each side: (nz + 2, ny + 2, nx + 2)
};

/// Places in the fixed volume and what it holds there.
struct FixedSamples {
  std::vector<Point3> points;  // (n) mm
  std::vector<float> values;   // (n)
  float low = 0, high = 0;     // smallest value, 99.9th percentile
};

/// One place a voxel around the foreground with `margin_mm` more on each side, at most `most` of them, each moved at random by up to half a
/// voxel: on the bare grid, interpolation favours transforms that put voxels on voxels. The same places every time.
FixedSamples sample_fixed(const Volume& fixed, float threshold, double margin_mm, int64_t most);

}  // namespace ermoe
