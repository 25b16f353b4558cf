// What an alignment did, for people to look at: slices of the template, and of a volume before and after. Behind `ermoe-data align`.
#pragma once

#include "data/image.h"
#include "data/volume.h"

#include <string>

namespace ermoe {

/// The middle axial, coronal and sagittal slice of the template; the same places in the volume before (where its file puts it) and after,
/// with the template's outline; and squares of template and result by turns. The patient's right is on the right, the front or the top is
/// up, letters on the borders say so. `to_moving` takes the template's world to the volume's.
Image draw_alignment(const Volume& fixed, const Volume& moving, const Affine& to_moving, const std::string& title);

}  // namespace ermoe
