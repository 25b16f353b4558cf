#include "data/resident.h"

#include <algorithm>

namespace ermoe {
namespace {

/// Copies `from` into rows of `to` that begin at `row`.
void upload_rows(const Tensor& from, const Tensor& to, int64_t row) { copy(from, to.slice(row, row + from.shape()[0])); }

}  // namespace

int64_t ResidentSamples::first_row_from(int64_t sample) const { return std::ranges::lower_bound(samples, sample) - samples.begin(); }

int64_t ResidentSamples::row_of(int64_t sample) const {
  const int64_t row = first_row_from(sample);
  return row < std::ssize(samples) ? row : 0;
}

size_t resident_bytes(const ImageDataset& dataset, const SampleFormat& format) {
  return static_cast<size_t>(dataset.size()) * (static_cast<size_t>(format.elements()) + sizeof(int32_t));
}

ResidentSamples load_resident(const ImageDataset& dataset, CachingAllocator& host, CachingAllocator& device, LoaderOptions options,
                              const std::function<void(int64_t)>& progress) {
  constexpr int64_t piece_bytes = int64_t{4} << 20;
  const SampleFormat& format = options.format;
  const int64_t n = dataset.size(), piece = std::clamp<int64_t>(piece_bytes / format.elements(), 1, n);
  options.cache_bytes = 0;  // each sample is read once
  Loader loader(dataset, Sampler(n, {.batch = piece, .mode = Mode::eval}), host, options);
  ResidentSamples resident;
  const Tensor images = Tensor::empty(device, {n, format.size, format.size, format.channels}, DType::u8, "data set");
  const Tensor labels = Tensor::empty(device, {n}, DType::i32, "data set");
  for (int64_t step = 0; step < loader.steps_per_epoch(); ++step) {
    const Batch batch = loader.next();
    const int64_t row = std::ssize(resident.samples);
    upload_rows(batch.images, images, row);
    upload_rows(batch.labels, labels, row);
    resident.samples.insert(resident.samples.end(), batch.indices.begin(), batch.indices.end());
    if (progress) progress(std::min(n, (step + 1) * piece));
  }
  const int64_t rows = std::ssize(resident.samples);
  check_input(rows > 0, "not one of {} files can be read", n);
  resident.images = images.slice(0, rows);
  resident.labels = labels.slice(0, rows);
  return resident;
}

}  // namespace ermoe
