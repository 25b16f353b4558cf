// Resize, crop, channel conversion and the cache of prepared samples. Read data/sample_reader.h first.
#include "data/sample_reader.h"

#include "core/error.h"
#include "data/resize.h"

#include <algorithm>
#include <cstring>
#include <new>

namespace ermoe {

void prepare(const Image& image, const SampleFormat& format, uint8_t* out) {
  Image made = image;
  if (std::min(made.height, made.width) != format.size) made = resize_shorter_side(made, format.size);
  if (made.height != made.width) made = center_crop(made, format.size, format.size);
  if (made.channels != format.channels) made = format.channels == 1 ? to_grey(made) : to_rgb(made);
  std::copy(made.pixels.begin(), made.pixels.end(), out);
}

SampleReader::SampleReader(const ImageDataset& dataset, const SampleFormat& format, size_t cache_bytes)
    : dataset_(dataset), format_(format), state_(new std::atomic<State>[static_cast<size_t>(dataset.size())]) {
  check_input(format.size >= 1 && format.size <= 16384, "image_size: {} pixels, where 1 to 16384 are possible", format.size);
  check_input(format.channels == 1 || format.channels == 3, "channels: {}, where 1 (grey) or 3 (RGB) are possible", format.channels);
  const auto n = static_cast<size_t>(dataset.size());
  std::fill_n(state_.get(), n, State::absent);
  const auto each = static_cast<size_t>(format.elements());
  // Left uninitialised: pages are taken as samples arrive. Without the memory there is simply no cache.
  if (n <= cache_bytes / each) cache_.reset(new (std::nothrow) uint8_t[n * each]);
}

void SampleReader::read(int64_t i, uint8_t* out) {
  std::atomic<State>& state = state_[static_cast<size_t>(i)];
  const auto bytes = static_cast<size_t>(format_.elements());
  State seen = state.load(std::memory_order_acquire);
  if (seen == State::present) {
    std::memcpy(out, cache_.get() + static_cast<size_t>(i) * bytes, bytes);
    return;
  }
  if (seen == State::broken) {
    const std::lock_guard lock(faults_mutex_);
    throw InputError(faults_.at(i));
  }
  try {
    decode(i, out);
  } catch (const InputError& error) {
    const std::lock_guard lock(faults_mutex_);
    faults_.emplace(i, error.what());
    state.store(State::broken, std::memory_order_release);
    throw;
  }
  // One thread fills the cache; another that decoded the same sample meanwhile has it in `out` already.
  seen = State::absent;
  if (cache_ && state.compare_exchange_strong(seen, State::filling)) {
    std::memcpy(cache_.get() + static_cast<size_t>(i) * bytes, out, bytes);
    state.store(State::present, std::memory_order_release);
  }
}

void SampleReader::decode(int64_t i, uint8_t* out) {
  const Image image = dataset_.read(i);
  check_input(image.height > 0 && image.width > 0 && (image.channels == 1 || image.channels == 3) &&
                  static_cast<int64_t>(image.pixels.size()) == image.height * image.width * image.channels,
              "{}: an image of {} x {} pixels with {} channels", dataset_.name(i), image.height, image.width, image.channels);
  // A strip of one pixel by many thousands would be blown up to S times its area.
  const int64_t shorter = std::min(image.height, image.width), longer = std::max(image.height, image.width);
  check_input(longer / shorter <= 100, "{}: an image of {} x {} pixels is too narrow", dataset_.name(i), image.height, image.width);
  if (image.channels != format_.channels) converted_from_.store(image.channels, std::memory_order_relaxed);
  prepare(image, format_, out);
}

}  // namespace ermoe
