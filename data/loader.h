// Batches in order, made ahead by worker threads. The loader delivers raw u8; augmentation is an op and runs where the
// data is. Read data/sampler.h first; next: data/sample_reader.h.
#pragma once

#include "core/tensor.h"
#include "data/sample_reader.h"
#include "data/sampler.h"

#include <condition_variable>
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <optional>
#include <thread>

namespace ermoe {

struct LoaderOptions {
  SampleFormat format;                   // size and channels that the model wants
  std::optional<ResizedCrop> crop = {};  // a new random part of a sample each epoch, rather than its middle
  int threads = 2;                       // 0: in line, in the thread that calls `next`
  int64_t prefetch = 4;                  // batches made ahead; at least one a thread
  size_t cache_bytes = size_t{2} << 30;  // prepared samples stay in memory where all of them fit
  double max_bad = 0.01;                 // share of the data set's files that may be broken
  JpegEngine* engine = nullptr;          // decodes JPEG files ahead of the threads; must outlive the loader
  WarnFn warn;                           // empty: silent
};

struct Batch {
  Tensor images;                 // (B, S, S, channels) u8
  Tensor labels;                 // (B) i32
  std::vector<int64_t> indices;  // (B) samples of the data set, after replacement of broken ones
  int64_t epoch = 0;
  int64_t step = 0;  // within the epoch
};

/// Endless: after the last step of an epoch comes the first of the next. The batches depend on the data set, the
/// sampler and who decodes (an engine rounds otherwise), never on the number of threads.
///
/// A broken file is named once, and counted. In training the next readable sample of the data set takes its place; in
/// evaluation it is left out and the batch is shorter, so that no sample counts twice.
///
/// `next`, `seek` and the warnings belong to one thread.
class Loader {
 public:
  /// `dataset` and `host` must outlive the loader, `host` also its batches.
  Loader(const ImageDataset& dataset, const Sampler& sampler, CachingAllocator& host, LoaderOptions options, Cursor start = {});
  ~Loader() = default;
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  /// The batch at the cursor, which moves on. Throws `InputError` when more than `max_bad` of the files proved broken,
  /// and whatever else a worker threw; thrown once, it is thrown by every later call until `seek`.
  Batch next();
  /// True where a batch made ahead waits, without a fault: `next` would return it at once.
  bool ready();
  /// Of the batch that `next` will give: what a checkpoint stores.
  Cursor cursor() const { return cursor_; }
  /// Continues at another place; batches made ahead are dropped.
  void seek(Cursor at);

  int64_t steps_per_epoch() const { return sampler_.steps_per_epoch(); }
  /// Distinct broken files met in the batches delivered so far.
  int64_t bad_files() const { return static_cast<int64_t>(bad_.size()); }
  /// Total time that `next` kept its caller waiting.
  double wait_seconds() const { return wait_seconds_; }

 private:
  using Faults = std::map<int64_t, std::string>;  // sample → what is wrong with it
  struct Made {
    Batch batch;
    Faults bad;
    std::exception_ptr error;
  };

  void reserve();
  void start();
  void work(const std::stop_token& stop);
  Made make(Cursor at, const std::stop_token& stop);
  void fill(Made& made, std::vector<int64_t> wanted, const std::stop_token& stop);
  std::optional<int64_t> read_or_replace(int64_t wanted, int64_t epoch, uint8_t* out, std::deque<FileAhead>& ahead, Faults& bad);
  void read(int64_t sample, int64_t epoch, uint8_t* out, FileAhead begun);
  void report(const Made& made);

  Sampler sampler_;
  CachingAllocator& host_;
  LoaderOptions options_;
  SampleReader reader_;
  int64_t allowed_bad_ = 0;
  Cursor cursor_;
  Faults bad_;
  bool told_conversion_ = false;
  double wait_seconds_ = 0;

  std::mutex mutex_;  // guards what follows
  std::condition_variable_any room_, ready_;
  std::vector<std::optional<Made>> slots_;  // a ring: batch number t lies in slot t modulo its size
  int64_t begun_ = 0;                       // batches that a worker has taken on
  int64_t taken_ = 0;                       // batches that the caller got
  Cursor begin_next_;
  std::vector<std::jthread> workers_;  // last, so that it is stopped and joined before the rest goes
};

}  // namespace ermoe
