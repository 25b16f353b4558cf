// How well two volumes fit at a transform, and which way it gets better: normalised correlation and mutual information over sampled
// points, with first derivatives and a curvature. Read next: data/align.h, which climbs.
#pragma once

#include "data/align.h"
#include "data/volume.h"

#include <array>
#include <memory>
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

/// A measure, to be made larger, around a transform T: parameters (d, t) stand for y -> y + d (y - centre) + t after T, d (3, 3) row by
/// row, then t.
struct MeasureSlope {
  double value = 0;
  std::array<double, 12> gradient{};
  std::array<std::array<double, 12>, 12> curvature{};  // of a parabola that falls off from the maximum: symmetric, not negative
};

class Measure {
 public:
  virtual ~Measure() = default;
  /// At world-of-fixed -> world-of-moving; -1 (less than any fit) where less than a quarter of the samples meets the moving volume.
  virtual double value(const Affine& transform) const = 0;
  virtual MeasureSlope slope(const Affine& transform, const Point3& centre) const = 0;
};

/// `fixed` must outlive it.
std::unique_ptr<Measure> make_measure(AlignMeasure kind, const FixedSamples& fixed, const Volume& moving);

}  // namespace ermoe
