// Images of a data set, looked at one by one: what sizes they have, and whether any is broken. Read first: tools/inspection.h.
#pragma once

#include "data/dataset.h"

#include <cstdint>
#include <string>

namespace ermoe {

/// How many images of a data set are looked at: a hundred, spread over it, or every one.
enum class Look { sample, all };

/// What the images that were looked at are like.
struct ImageSizes {
  int64_t seen = 0, broken = 0;
  double height = 0, width = 0;  // sums
  int64_t smallest = INT64_MAX, largest = 0;
  std::string first_fault;

  /// A line for people, of a data set of `all` images; empty where none could be read.
  std::string line(int64_t all) const;
  /// A sentence where some are broken.
  std::string fault() const;
};

/// Decodes images of a split, in any order, and adds them to `sizes`; a broken one is counted, and the first by number is kept for the
/// message. `threads` decode.
void look_at_images(const ImageDataset& split, Look look, int threads, ImageSizes& sizes);

}  // namespace ermoe
