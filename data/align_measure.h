// How well two volumes fit at a transform, and which way it gets better: normalised correlation and mutual information over sampled
// points, with first derivatives and a curvature. Read next: data/align.h, which climbs.
#pragma once

#include "data/align.h"
#include "data/align_samples.h"

#include <array>
#include <memory>

namespace ermoe {

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
