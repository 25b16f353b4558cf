// Bringing volumes to one grid: axes in one order, one spacing, one size. Everything keeps what lies where in the world, so results of
// several steps, and region maps beside intensities, stay together. Built on data/volume.h; read next: data/intensity.h.
#pragma once

#include "data/volume.h"

#include <array>
#include <cstdint>
#include <string>

namespace ermoe {

/// The directions in which the three voxel axes run, as letters: "RAS" where they run to the right, to the front and up, "LPI" the other
/// way.
std::string orientation_text(const Grid& grid);

/// The same voxels at the same places, with axes swapped and reversed so that they run as nearly as can be to the right, to the front and
/// up (RAS). Nothing is interpolated. nibabel's `as_closest_canonical` chooses the same wherever each axis runs most along another
/// direction; where two run most along the same one, its choice depends on the order of the axes, and this one does not.
Grid to_ras(const Grid& grid);
Volume to_ras(const Volume& volume);

/// How a value between voxels is found: `linear` between the eight around it, or that of the `nearest`, for numbers of regions.
enum class Interpolation { linear, nearest };

/// `volume` at the voxels of `grid`, found through the world. A volume reaches half a voxel beyond the middles of its outermost voxels;
/// what lies further out is `outside`.
/// Where `grid` is coarser and interpolation linear, the volume is first smoothed by a Gaussian so that nothing finer than the new spacing
/// folds back: along each axis of variance (f² - 1) / (8 ln 2) voxels², f being the new spacing in old voxels, which makes an old
/// voxel's point spread, taken as a Gaussian of full width 1 at half maximum, one of full width f (Cardoso et al., MICCAI 2015).
Volume resample(const Volume& volume, const Grid& grid, Interpolation how, float outside = 0);

/// A Gaussian of standard deviation sigma[a] voxels along axis a (0: none), cut off at 4 sigma and scaled to sum 1 within the volume.
Volume smooth(const Volume& volume, const Point3& sigma);

/// A grid over the same space with voxels of `mm` along each axis: the same axes and middle, as few voxels as cover it.
Grid grid_with_spacing(const Grid& grid, double mm);

/// What a window is laid around: the middle of the box around the voxels above a threshold, or their centre of mass (each weighs 1).
enum class Middle { box, mass };

/// That middle, in voxels (i, j, k); the grid's own where no voxel is above the threshold.
Point3 middle_of(const Volume& volume, Middle how, float threshold = 0);

/// `size` voxels of the same lattice, reaching equally far to both sides of voxel position `around` (to half a voxel).
Grid window_around(const Grid& grid, const std::array<int64_t, 3>& size, const Point3& around);

/// The part of a volume that lies in a window of the same lattice, `outside` where it has no voxels. Throws `Error` for another lattice.
Volume crop_or_pad(const Volume& volume, const Grid& window, float outside = 0);
/// The same with a window of `size` around a middle.
Volume crop_or_pad(const Volume& volume, const std::array<int64_t, 3>& size, Middle around, float threshold = 0);

/// Whether two grids have the same size and their voxels lie within `mm` of each other.
bool same_grid(const Grid& a, const Grid& b, double mm = 1e-2);

}  // namespace ermoe
