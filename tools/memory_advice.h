// What a user whose device ran out of memory can do: a batch that would fit, from what dry runs measured.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace ermoe {

/// Bytes that a dry run of so many images needed above the model's.
struct MeasuredImages {
  int64_t images = 0;
  size_t bytes = 0;
};

/// Images at a time whose activations fit into `room` bytes, where `few` and `more` were measured and each further image needs as
/// much as those between the two. A tenth of `room` stays free: blocks do not lie without gaps. 0 where not one image fits.
int64_t images_that_fit(MeasuredImages few, MeasuredImages more, size_t room);

/// The end of a sentence that names what fits, for train.batch `batch` in `accumulate` micro-batches that did not:
/// "train.batch 96 would fit, or train.accumulate 4 with train.batch 256".
std::string batch_advice(int64_t batch, int64_t accumulate, int64_t fitting);

}  // namespace ermoe
