// The random-resized crop of large photographs (Szegedy et al., arXiv 1409.4842; the draws are torchvision's and timm's): a part
// of random area and proportions, scaled to the model's square. Samples differ in size, so it belongs to decoding and not to
// the ops. Read next: data/sample_reader.h.
#pragma once

#include "core/rng.h"
#include "data/resize.h"

namespace ermoe {

struct ResizedCrop {
  double least_area = 0.08, most_area = 1;          // shares of the image's area
  double least_ratio = 0.75, most_ratio = 4.0 / 3;  // width over height, drawn evenly in its logarithm
};

/// A part of an image of (height, width) pixels, from the key alone. Ten draws; where none fits, the largest middle part whose
/// proportions are allowed.
CropBox draw_resized_crop(const ResizedCrop& settings, RngKey key, int64_t height, int64_t width);

}  // namespace ermoe
