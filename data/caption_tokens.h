// Captions as ids, encoded once, and which caption of an image a step of training takes. Read data/captions.h first.
#pragma once

#include "core/rng.h"
#include "core/tensor.h"
#include "data/captions.h"

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

namespace ermoe {

/// Names the draws of captions in one epoch.
RngKey caption_key(uint64_t seed, int64_t epoch);

/// The caption, of `count`, of one sample: uniform, and a function of nothing but the key and the sample, so that a run that goes on
/// draws what it would have drawn.
int64_t caption_index(RngKey key, int64_t sample, int64_t count);

/// Ids of all captions of a data set. Const members may be called from several threads at once.
class CaptionTokens {
 public:
  /// The ids of a text, always `width` of them; called from several threads at once.
  using Encode = std::function<std::vector<int32_t>(std::string_view text)>;

  /// Encodes every caption, on `threads` threads. Throws what `encode` throws for the first caption that it refuses, and `Error` for a row
  /// of another length. `captions` must outlive it.
  CaptionTokens(const CaptionDataset& captions, int64_t width, const Encode& encode, int threads = 1);

  int64_t width() const { return width_; }
  /// Number of captions.
  int64_t size() const { return std::ssize(begin_) - 1; }
  /// Writes the ids of a caption, counted in the order of evaluation, to `ids` (width).
  void read(int64_t caption, int32_t* ids) const;
  /// Fills `ids` (B, W) i32, in the processor's memory, with a random caption of each sample: `caption_index` of (key, sample).
  void fill_random(std::span<const int64_t> samples, RngKey key, const Tensor& ids) const;
  /// Fills `ids` (B, W) i32, in the processor's memory, with the captions first, first + 1, …, first + B - 1 of the order of evaluation.
  void fill_in_order(int64_t first, const Tensor& ids) const;
  /// Bytes that it keeps.
  size_t bytes() const { return ids_.size() * sizeof(int32_t) + begin_.size() * sizeof(int64_t); }

 private:
  const CaptionDataset& captions_;
  int64_t width_;
  std::vector<int32_t> ids_;    // of each row, up to and with the first of the equal ids that end it (its padding)
  std::vector<int64_t> begin_;  // of each row in ids_, and the end
};

}  // namespace ermoe
