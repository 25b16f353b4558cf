// A whole data set, decoded and prepared once, in a device's memory: batches of it are picked there. For data sets of small
// images, whose decoding would keep a GPU waiting. Read data/loader.h first; next: tools/batch_source.h.
#pragma once

#include "data/loader.h"

#include <functional>
#include <vector>

namespace ermoe {

struct ResidentSamples {
  Tensor images;                 // (rows, S, S, channels) u8, on the device
  Tensor labels;                 // (rows) i32, on the device
  std::vector<int64_t> samples;  // (rows) of the data set, ascending: all but the broken ones

  /// The row of a sample; of the next readable one where it is broken, as the loader replaces it in training.
  int64_t row_of(int64_t sample) const;
  /// The first row of a sample that is not before `sample`; the number of rows where there is none.
  int64_t first_row_from(int64_t sample) const;
};

/// Bytes that `load_resident` takes of the device, about.
size_t resident_bytes(const ImageDataset& dataset, const SampleFormat& format);

/// Decodes every sample with the loader's threads and rules: broken ones are named and counted, and past `max_bad` it throws
/// `InputError`. `progress` (may be empty) hears how many samples are done. `host` is memory that `device` is fed from.
ResidentSamples load_resident(const ImageDataset& dataset, CachingAllocator& host, CachingAllocator& device, LoaderOptions options,
                              const std::function<void(int64_t)>& progress = {});

}  // namespace ermoe
