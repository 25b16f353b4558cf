// One sample brought to the model's size, kept in memory where the whole data set fits. Between a data set and the
// loader's threads. Read next: data/loader.h.
#pragma once

#include "data/dataset.h"
#include "data/decode_ahead.h"
#include "data/resized_crop.h"

#include <atomic>
#include <map>
#include <memory>
#include <mutex>

namespace ermoe {

struct SampleFormat {
  int64_t size = 32;     // S, pixels a side
  int64_t channels = 3;  // 1 (grey) or 3 (RGB)
  double crop_pct = 1;   // share of the shorter side that a centre crop keeps
  int64_t elements() const { return size * size * channels; }
};

/// Brings an image to (S, S, channels) at `out`: the shorter side is resized to S / crop_pct, the middle S x S are kept; grey is repeated
/// for RGB, RGB becomes luma (ITU-R BT.601) for grey.
void prepare(const Image& image, const SampleFormat& format, uint8_t* out);

/// Reads samples by index from any number of threads. A file that once failed is not opened again.
class SampleReader {
 public:
  /// Keeps prepared samples where all of them take at most `cache_bytes`. `dataset` must outlive the reader, and so must
  /// `engine`, which decodes what was begun; null: the calling threads decode.
  SampleReader(const ImageDataset& dataset, const SampleFormat& format, size_t cache_bytes, JpegEngine* engine = nullptr);

  /// Reads the file of sample i and lets the engine begin with it, for a call of `read` or `read_crop` to come. Nothing where
  /// there is no engine, no need of one, or no file; a file that cannot be read is theirs to report.
  FileAhead begin(int64_t i);
  /// Writes sample i, (S, S, channels) u8. Throws `InputError` where its file is broken.
  void read(int64_t i, uint8_t* out, FileAhead begun = {});
  /// Writes a random part of sample i, the same for the same key; nothing is kept for a later call.
  void read_crop(int64_t i, const ResizedCrop& settings, RngKey key, uint8_t* out, FileAhead begun = {});

  const ImageDataset& dataset() const { return dataset_; }
  const SampleFormat& format() const { return format_; }
  /// Channels of a file that was converted to the wanted count, or 0 as long as there was none.
  int64_t converted_from() const { return converted_from_.load(std::memory_order_relaxed); }
  bool caches() const { return cache_ != nullptr; }

 private:
  enum class State : uint8_t { absent, filling, present, broken };

  void decode(int64_t i, uint8_t* out, FileAhead& begun);
  void decode_crop(int64_t i, const ResizedCrop& settings, RngKey key, uint8_t* out, FileAhead& begun);
  void check_size(int64_t i, int64_t height, int64_t width, int64_t channels) const;
  void throw_if_broken(int64_t i);
  void mark_broken(int64_t i, const std::string& fault);

  const ImageDataset& dataset_;
  SampleFormat format_;
  JpegEngine* engine_;                           // or null
  std::unique_ptr<uint8_t[]> cache_;             // (n, S, S, channels), or null
  std::unique_ptr<std::atomic<State>[]> state_;  // (n)
  std::atomic<int64_t> converted_from_ = 0;
  std::mutex faults_mutex_;
  std::map<int64_t, std::string> faults_;  // of broken samples
};

}  // namespace ermoe
