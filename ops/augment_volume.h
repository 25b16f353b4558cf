// Random variation of training volumes, on the device where they are: place and size by one resampling, then intensities. The map of
// regions beside a volume goes the same way. Not differentiable, and without state: the key decides everything. Read next:
// ops/kernels/augment_volume.h.
#pragma once

#include "core/context.h"

namespace ermoe {

/// What is done to each volume on its own, drawn evenly between the bounds. The default is nothing. Voxels are taken to be as long as
/// they are wide and high.
struct VolumeAugment {
  double shift = 0;   // along each axis, up to so many voxels either way
  double rotate = 0;  // around each axis, up to so many degrees either way
  double scale = 0;   // larger or smaller by up to this share: 0.1 makes 1/1.1 to 1.1
  bool flip = false;  // mirror half of the volumes left to right, which is the last axis
  double gain = 0;    // brighter or darker by up to this share, likewise
  double gamma = 0;   // exponent of intensities, 1/(1 + gamma) to 1 + gamma; an intensity of 1 stays
  double bias = 0;    // smooth field of brightness: the largest coefficient of its logarithm, a polynomial of second degree
  double noise = 0;   // largest standard deviation of noise, in the unit of intensities
};

struct VolumesAndLabels {
  Tensor volumes;  // (B, C, nz, ny, nx) f32
  Tensor labels;   // (B, nz, ny, nx) as given, or undefined
};

/// New volumes from `volumes` f32 (B, C, nz, ny, nx) whose background is 0: that stays 0, since gain, gamma, field and noise, in this
/// order, change what is not 0 alone; of a negative intensity gamma changes the size. Trilinear between voxels, 0 beyond the grid.
/// `labels` (B, nz, ny, nx) f32 or i32, or undefined, follow by the nearest voxel: the label of voxel v is that of the place v came from.
/// Volume b of the batch that the ranks share draws from key.fold(b) alone, so its values depend on neither the rest of the batch nor the
/// number of ranks or threads. Throws `Error` on other shapes and on settings out of range.
VolumesAndLabels augment_volume(const ExecContext& ctx, const Tensor& volumes, const Tensor& labels, const VolumeAugment& settings,
                                RngKey key);

}  // namespace ermoe
