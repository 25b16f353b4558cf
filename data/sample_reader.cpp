// Resize, crop, channel conversion and the cache of prepared samples. Read data/sample_reader.h first.
#include "data/sample_reader.h"

#include "core/error.h"
#include "data/resize.h"

#include <algorithm>
#include <cstring>
#include <new>

namespace ermoe {

namespace {

constexpr size_t largest_file_ahead = size_t{8} << 20;  // several of them wait in memory

void store(const Image& image, const SampleFormat& format, uint8_t* out) {
  const Image made = format.channels == 1 ? to_grey(image) : to_rgb(image);
  std::copy(made.pixels.begin(), made.pixels.end(), out);
}

}  // namespace

void prepare(const Image& image, const SampleFormat& format, uint8_t* out) {
  const auto shorter = static_cast<int64_t>(static_cast<double>(format.size) / format.crop_pct);
  Image made = image;
  if (std::min(made.height, made.width) != shorter) made = resize_shorter_side(made, shorter);
  if (made.height != format.size || made.width != format.size) made = center_crop(made, format.size, format.size);
  store(made, format, out);
}

SampleReader::SampleReader(const ImageDataset& dataset, const SampleFormat& format, size_t cache_bytes, JpegEngine* engine)
    : dataset_(dataset), format_(format), engine_(engine), state_(new std::atomic<State>[static_cast<size_t>(dataset.size())]) {
  check_input(format.size >= 1 && format.size <= 16384, "image_size: {} pixels, where 1 to 16384 are possible", format.size);
  check_input(format.crop_pct >= 0.1 && format.crop_pct <= 1, "crop_pct: {}, where 0.1 to 1 is possible", format.crop_pct);
  check_input(format.channels == 1 || format.channels == 3, "channels: {}, where 1 (grey) or 3 (RGB) are possible", format.channels);
  const auto n = static_cast<size_t>(dataset.size());
  std::fill_n(state_.get(), n, State::absent);
  const auto each = static_cast<size_t>(format.elements());
  // Left uninitialised: pages are taken as samples arrive. Without the memory there is simply no cache.
  if (n <= cache_bytes / each) cache_.reset(new (std::nothrow) uint8_t[n * each]);
}

FileAhead SampleReader::begin(int64_t i) {
  if (engine_ == nullptr || state_[static_cast<size_t>(i)].load(std::memory_order_acquire) != State::absent) return {};
  try {
    std::optional<std::string> file = dataset_.file(i);
    if (file && file->size() <= largest_file_ahead) return {std::move(*file), *engine_};
  } catch (const InputError&) {
    // Whoever reads the sample meets the same fault, at a place where it is counted.
  }
  return {};
}

void SampleReader::read(int64_t i, uint8_t* out, FileAhead begun) {
  std::atomic<State>& state = state_[static_cast<size_t>(i)];
  const auto bytes = static_cast<size_t>(format_.elements());
  State seen = state.load(std::memory_order_acquire);
  if (seen == State::present) {
    std::memcpy(out, cache_.get() + static_cast<size_t>(i) * bytes, bytes);
    return;
  }
  throw_if_broken(i);
  try {
    decode(i, out, begun);
  } catch (const InputError& error) {
    mark_broken(i, error.what());
    throw;
  }
  // One thread fills the cache; another that decoded the same sample meanwhile has it in `out` already.
  seen = State::absent;
  if (cache_ && state.compare_exchange_strong(seen, State::filling)) {
    std::memcpy(cache_.get() + static_cast<size_t>(i) * bytes, out, bytes);
    state.store(State::present, std::memory_order_release);
  }
}

void SampleReader::read_crop(int64_t i, const ResizedCrop& settings, RngKey key, uint8_t* out, FileAhead begun) {
  throw_if_broken(i);
  try {
    decode_crop(i, settings, key, out, begun);
  } catch (const InputError& error) {
    mark_broken(i, error.what());
    throw;
  }
}

void SampleReader::throw_if_broken(int64_t i) {
  if (state_[static_cast<size_t>(i)].load(std::memory_order_acquire) != State::broken) return;
  const std::lock_guard lock(faults_mutex_);
  throw InputError(faults_.at(i));
}

void SampleReader::mark_broken(int64_t i, const std::string& fault) {
  const std::lock_guard lock(faults_mutex_);
  faults_.emplace(i, fault);
  state_[static_cast<size_t>(i)].store(State::broken, std::memory_order_release);
}

void SampleReader::check_size(int64_t i, int64_t height, int64_t width, int64_t channels) const {
  check_input(height > 0 && width > 0 && (channels == 1 || channels == 3), "{}: an image of {} x {} pixels with {} channels",
              dataset_.name(i), height, width, channels);
  // A strip of one pixel by many thousands would be blown up to S times its area.
  const int64_t shorter = std::min(height, width), longer = std::max(height, width);
  check_input(longer / shorter <= 100, "{}: an image of {} x {} pixels is too narrow", dataset_.name(i), height, width);
}

void SampleReader::decode(int64_t i, uint8_t* out, FileAhead& begun) {
  const Image image = begun ? begun.image(dataset_.name(i)) : dataset_.read(i);
  check_size(i, image.height, image.width, image.channels);
  check_input(std::ssize(image.pixels) == image.height * image.width * image.channels, "{}: {} values for {} x {} pixels", dataset_.name(i),
              image.pixels.size(), image.height, image.width);
  if (image.channels != format_.channels) converted_from_.store(image.channels, std::memory_order_relaxed);
  prepare(image, format_, out);
}

void SampleReader::decode_crop(int64_t i, const ResizedCrop& settings, RngKey key, uint8_t* out, FileAhead& begun) {
  const auto choose = [&](int64_t height, int64_t width) {
    check_size(i, height, width, 3);
    return draw_resized_crop(settings, key, height, width);
  };
  const WantedPart wanted{.choose = choose, .side = format_.size};
  const Image part = begun ? begun.part(dataset_.name(i), wanted) : dataset_.read_part(i, wanted);
  if (part.channels != format_.channels) converted_from_.store(part.channels, std::memory_order_relaxed);
  store(resize(part, format_.size, format_.size), format_, out);
}

}  // namespace ermoe
