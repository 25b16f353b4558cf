// Maps over the brain, as slices: a row for each map, in colour over the mean brain in grey. Read first: tools/slice_view.h.
#pragma once

#include "data/image.h"
#include "data/volume.h"

#include <string>
#include <vector>

namespace ermoe {

/// What lies under the maps.
struct MeanBrain {
  Volume intensities;        // black where it is not brain
  std::vector<bool> inside;  // of its voxels
};

struct MapRow {
  std::string title;
  Volume map;  // on the grid of the brain, values from 0
};

/// A sagittal, a coronal and an axial slice of each map through the middle of the cube (`side` voxels) where it is highest inside the
/// brain; the place stands beside the title. Colours run from `low`, clear, to `high`, and a bar at the foot says so in `unit`. Up to
/// a hundred rows are drawn.
Image draw_maps(const MeanBrain& brain, const std::vector<MapRow>& rows, int64_t side, double low, double high, const std::string& title,
                const std::string& unit);

}  // namespace ermoe
