// The ring of batches and its workers. Read data/loader.h first.
#include "data/loader.h"

#include <algorithm>
#include <chrono>
#include <cmath>

namespace ermoe {
namespace {

constexpr uint64_t crop_draws = 0x63726f70;  // keeps their keys apart from those of the order
constexpr size_t files_ahead = 8;            // of each thread: enough to keep an engine busy while the thread scales

}  // namespace

Loader::Loader(const ImageDataset& dataset, const Sampler& sampler, CachingAllocator& host, LoaderOptions options, Cursor start_at)
    : sampler_(sampler),
      host_(host),
      options_(std::move(options)),
      reader_(dataset, options_.format, options_.crop ? 0 : options_.cache_bytes, options_.engine),
      cursor_(start_at) {
  check(sampler.size() == dataset.size(), "[loader] a sampler of {} for a data set of {}", sampler.size(), dataset.size());
  check_input(options_.max_bad >= 0 && options_.max_bad <= 1, "max_bad: {} is not a share between 0 and 1", options_.max_bad);
  check_input(options_.threads >= 0 && options_.threads <= 1024, "threads: {}, where 0 to 1024 are possible", options_.threads);
  check_input(options_.prefetch >= 1 && options_.prefetch <= 65536, "prefetch: {} batches, where 1 to 65536 are possible",
              options_.prefetch);
  allowed_bad_ = static_cast<int64_t>(std::floor(options_.max_bad * static_cast<double>(dataset.size())));
  reserve();
  start();
}

/// Takes the memory of all batches that can be there at once, so that a later one never waits for the system: those in the
/// ring, the one that the caller uses and another on its way to a GPU.
void Loader::reserve() {
  const SampleFormat& format = options_.format;
  const int64_t rows = most_images_a_part(sampler_.options().batch, sampler_.options().world);
  std::vector<Tensor> batches;
  for (int64_t i = 0; i < std::max<int64_t>(options_.prefetch, options_.threads) + 2; ++i) {
    batches.push_back(Tensor::empty(host_, {rows, format.size, format.size, format.channels}, DType::u8, "batch"));
    batches.push_back(Tensor::empty(host_, {rows}, DType::i32, "batch"));
  }
}

void Loader::start() {
  slots_.clear();
  slots_.resize(static_cast<size_t>(std::max<int64_t>(options_.prefetch, options_.threads)));
  begun_ = taken_ = 0;
  begin_next_ = cursor_;
  for (int t = 0; t < options_.threads; ++t) workers_.emplace_back([this](const std::stop_token& stop) { work(stop); });
}

void Loader::seek(Cursor at) {
  for (std::jthread& worker : workers_) worker.request_stop();
  workers_.clear();  // joins
  cursor_ = at;
  start();
}

void Loader::work(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  const auto capacity = static_cast<int64_t>(slots_.size());
  while (room_.wait(lock, stop, [&] { return begun_ < taken_ + capacity; }) && !stop.stop_requested()) {
    const int64_t number = begun_++;
    const Cursor at = begin_next_;
    begin_next_ = sampler_.after(at);
    lock.unlock();
    Made made = make(at, stop);
    lock.lock();
    slots_[static_cast<size_t>(number % capacity)] = std::move(made);
    ready_.notify_one();
  }
}

Batch Loader::next() {
  const auto begin = std::chrono::steady_clock::now();
  std::optional<Made>& slot = slots_[static_cast<size_t>(taken_) % slots_.size()];
  if (workers_.empty()) {
    if (!slot) slot = make(cursor_, {});
  } else {
    std::unique_lock lock(mutex_);
    ready_.wait(lock, [&] { return slot.has_value(); });
  }
  wait_seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  // Until `taken_` moves on no worker touches this slot. Where `report` throws it stays, so that the next call throws again.
  report(*slot);
  Batch batch = std::move(slot->batch);
  cursor_ = sampler_.after(cursor_);
  {
    const std::lock_guard lock(mutex_);
    slot.reset();
    ++taken_;
  }
  room_.notify_one();
  return batch;
}

bool Loader::ready() {
  const std::lock_guard lock(mutex_);
  const std::optional<Made>& slot = slots_[static_cast<size_t>(taken_) % slots_.size()];
  return !workers_.empty() && slot && slot->bad.empty() && !slot->error;
}

void Loader::report(const Made& made) {
  for (const auto& [sample, fault] : made.bad) {
    if (bad_.emplace(sample, fault).second && options_.warn) options_.warn(fault);
  }
  const int64_t n = sampler_.size();
  check_input(bad_files() <= allowed_bad_, "{} of {} files are broken, more than the {:.3g} % that max_bad allows; for example {}",
              bad_files(), n, 100 * options_.max_bad, bad_.empty() ? "" : bad_.begin()->second);
  if (made.error) std::rethrow_exception(made.error);
  if (options_.engine != nullptr && options_.warn) {
    const std::string fault = options_.engine->take_fault();
    if (!fault.empty()) options_.warn(fmt::format("the processor decodes JPEG files from here on: {}", fault));
  }
  const int64_t found = reader_.converted_from();
  if (found == 0 || told_conversion_) return;
  told_conversion_ = true;
  if (options_.warn)
    options_.warn(found == 1 ? "some images are grey and the model wants RGB: their channel is repeated"
                             : "some images are RGB and the model wants one channel: they are reduced to luma");
}

Loader::Made Loader::make(Cursor at, const std::stop_token& stop) {
  Made made;
  made.batch.epoch = at.epoch;
  made.batch.step = at.step;
  try {
    fill(made, sampler_.indices(at), stop);
  } catch (...) {
    made.error = std::current_exception();
  }
  return made;
}

void Loader::fill(Made& made, std::vector<int64_t> wanted, const std::stop_token& stop) {
  const auto rows = static_cast<int64_t>(wanted.size());
  const SampleFormat& format = options_.format;
  const Tensor images = Tensor::empty(host_, {rows, format.size, format.size, format.channels}, DType::u8, "batch");
  const Tensor labels = Tensor::empty(host_, {rows}, DType::i32, "batch");
  int64_t filled = 0;
  std::deque<FileAhead> ahead;  // of the next samples, in their order
  for (size_t k = 0; k < wanted.size(); ++k) {
    if (stop.stop_requested()) return;
    while (ahead.size() < files_ahead && k + ahead.size() < wanted.size()) ahead.push_back(reader_.begin(wanted[k + ahead.size()]));
    uint8_t* out = images.data<uint8_t>() + filled * format.elements();
    const auto got = read_or_replace(wanted[k], made.batch.epoch, out, ahead, made.bad);
    // Past the limit this batch is never delivered, so there is no use in reading on.
    if (static_cast<int64_t>(made.bad.size()) > allowed_bad_) return;
    if (!got) continue;
    labels.data<int32_t>()[filled++] = reader_.dataset().label(*got);
    made.batch.indices.push_back(*got);
  }
  made.batch.images = images.slice(0, filled);
  made.batch.labels = labels.slice(0, filled);
}

/// A random part depends on seed, epoch and sample alone, so no number of threads changes it.
void Loader::read(int64_t sample, int64_t epoch, uint8_t* out, FileAhead begun) {
  if (!options_.crop) return reader_.read(sample, out, std::move(begun));
  const RngKey key = RngKey{sampler_.options().seed}.fold(crop_draws).fold(static_cast<uint64_t>(epoch));
  reader_.read_crop(sample, *options_.crop, key.fold(static_cast<uint64_t>(sample)), out, std::move(begun));
}

/// The first of `ahead` is the wanted sample's file. A replacement goes the same way, through an engine where there is one, so that
/// a sample's pixels do not depend on why it was read; the others are begun again behind it, since nobody may hold pictures while
/// he waits for one that he asked for later.
std::optional<int64_t> Loader::read_or_replace(int64_t wanted, int64_t epoch, uint8_t* out, std::deque<FileAhead>& ahead, Faults& bad) {
  FileAhead begun = std::move(ahead.front());
  ahead.pop_front();
  const int64_t n = sampler_.size();
  const int64_t tries = sampler_.options().mode == Mode::train ? n : 1;
  for (int64_t t = 0; t < tries; ++t) {
    const int64_t index = (wanted + t) % n;
    if (t > 0) {
      ahead.clear();
      begun = reader_.begin(index);
    }
    try {
      read(index, epoch, out, std::move(begun));
      return index;
    } catch (const InputError& error) {
      bad.emplace(index, error.what());
      if (static_cast<int64_t>(bad.size()) > allowed_bad_) return std::nullopt;
    }
  }
  check_input(tries == 1, "not one of {} files can be read; for example {}", n, bad.begin()->second);
  return std::nullopt;
}

}  // namespace ermoe
