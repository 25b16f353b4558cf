// Slices of volumes for pictures, the same way up everywhere: the patient's right on the right, the front or the top up, and letters on the
// borders that say so. Read next: tools/align_picture.h, tools/expert_slices.h.
#pragma once

#include "data/image.h"
#include "data/volume.h"
#include "tools/chart.h"

#include <array>
#include <string_view>

namespace ermoe {

/// A plane through space: which world axis runs to the right of the picture and which one up, and their letters.
struct SlicePlane {
  size_t right, up;
  std::string_view name, letters;  // letters: left, right, top, bottom

  /// The world axis that the plane is cut across.
  size_t across() const { return 3 - right - up; }
};
inline constexpr SlicePlane kAxial{0, 1, "axial", "LRAP"}, kCoronal{0, 2, "coronal", "LRSI"}, kSagittal{1, 2, "sagittal", "PASI"};

/// In mm, of a grid's voxels with their outer halves.
struct WorldBox {
  Point3 low, high;

  double longest() const;
};
WorldBox box_of(const Grid& grid);

/// One voxel thick, its first axis to the right of the picture and its second one down; voxels of `mm`. It covers the box and goes
/// through a place.
Grid slice_grid(const SlicePlane& plane, const WorldBox& box, const Point3& through, double mm);

/// Black at the least value of a volume, white at its 99.8th percentile.
class GreyScale {
 public:
  explicit GreyScale(const Volume& volume);

  float black() const { return low_; }
  uint8_t grey(float value) const;
  Image image_of(const Volume& slice) const;

 private:
  float low_, high_;
};

/// The plane's letters on the borders of a slice drawn at (x, y).
void draw_letters(Canvas& canvas, int64_t x, int64_t y, const Grid& slice, const SlicePlane& plane, Color color);

}  // namespace ermoe
