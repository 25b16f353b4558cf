// What the intensities of a volume are brought to, and whether they are those of a brain alone. Built on data/volume.h.
#pragma once

#include "data/volume.h"

#include <optional>
#include <string>

namespace ermoe {

/// MRI intensities have no unit; models want them on one scale. Voxels above 0 are taken as the brain.
enum class Normalize {
  none,
  mean,        // divided by the brain's mean
  zscore,      // the brain's mean taken off, then divided by its standard deviation
  percentile,  // the brain's 1st percentile becomes 0 and its 99th becomes 1; what lies beyond is cut off there
};

/// Normalises the voxels above 0; the others become 0 (with `none` they stay). Throws `InputError` that begins with `name` where no voxel
/// is above 0, or all such have one value and the scale rests on how they differ.
void normalize(Volume& volume, Normalize how, const std::string& name);

/// A sentence beginning with `name` where the volume looks as if skull and skin were still in it, or nothing. It looks so where what is
/// bright (above a fifth of the 98th percentile of voxels above 0) fills more than 2.3 litres, which no brain does, or where fewer than a
/// quarter of the voxels are exactly 0, as they are outside of a brain that was cut out.
std::optional<std::string> looks_unstripped(const Volume& volume, const std::string& name);

}  // namespace ermoe
