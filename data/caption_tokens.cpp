#include "data/caption_tokens.h"

#include "core/error.h"

#include <algorithm>
#include <exception>

namespace ermoe {

namespace {

constexpr uint64_t caption_draws = 0x63617074;  // keeps their keys apart from those of the order and of crops

/// Runs `fn(i)` for each i below n; of what the calls threw, the one of the smallest i is thrown again.
void for_each_in_parallel(int64_t n, int threads, const std::function<void(int64_t)>& fn) {
  std::exception_ptr fault;
  int64_t where = n;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t i = 0; i < n; ++i) {
    try {
      fn(i);
    } catch (...) {
#pragma omp critical(caption_fault)
      if (i < where) {
        where = i;
        fault = std::current_exception();
      }
    }
  }
  if (fault) std::rethrow_exception(fault);
}

/// Length of a row without the repetitions of its last id.
size_t used_length(const std::vector<int32_t>& row) {
  size_t used = row.size();
  while (used > 1 && row[used - 2] == row.back()) --used;
  return used;
}

void check_batch(const Tensor& ids, int64_t rows, int64_t width) {
  check(ids.dtype() == DType::i32 && ids.shape() == Shape({rows, width}), "[captions] ids {} for {} rows of {} i32", ids.shape().str(),
        rows, width);
}

}  // namespace

RngKey caption_key(uint64_t seed, int64_t epoch) { return RngKey{seed}.fold(caption_draws).fold(static_cast<uint64_t>(epoch)); }

int64_t caption_index(RngKey key, int64_t sample, int64_t count) {
  return static_cast<int64_t>(uniform_int(key, static_cast<uint64_t>(sample), static_cast<uint64_t>(count)));
}

CaptionTokens::CaptionTokens(const CaptionDataset& captions, int64_t width, const Encode& encode, int threads)
    : captions_(captions), width_(width) {
  check(width > 0 && threads > 0, "[captions] rows of {} ids on {} threads", width, threads);
  const auto& texts = captions.all_captions();
  std::vector<std::vector<int32_t>> rows(texts.size());
  for_each_in_parallel(std::ssize(texts), threads, [&](int64_t i) {
    std::vector<int32_t> row = encode(texts[static_cast<size_t>(i)]);
    check(std::ssize(row) == width, "[captions] {} ids of a caption where {} are due", row.size(), width);
    row.resize(used_length(row));
    row.shrink_to_fit();
    rows[static_cast<size_t>(i)] = std::move(row);
  });
  begin_.reserve(rows.size() + 1);
  begin_.push_back(0);
  for (const auto& row : rows) begin_.push_back(begin_.back() + std::ssize(row));
  ids_.reserve(static_cast<size_t>(begin_.back()));
  for (const auto& row : rows) ids_.insert(ids_.end(), row.begin(), row.end());
}

void CaptionTokens::read(int64_t caption, int32_t* ids) const {
  check(caption >= 0 && caption < size(), "[captions] caption {} of {}", caption, size());
  const int64_t begin = begin_[static_cast<size_t>(caption)], end = begin_[static_cast<size_t>(caption) + 1];
  std::copy(ids_.begin() + begin, ids_.begin() + end, ids);
  std::fill(ids + (end - begin), ids + width_, ids_[static_cast<size_t>(end - 1)]);
}

void CaptionTokens::fill_random(std::span<const int64_t> samples, RngKey key, const Tensor& ids) const {
  check_batch(ids, std::ssize(samples), width_);
  int32_t* row = ids.data<int32_t>();
  for (const int64_t sample : samples) {
    const int64_t first = captions_.first_caption(sample), count = captions_.first_caption(sample + 1) - first;
    read(first + caption_index(key, sample, count), row);
    row += width_;
  }
}

void CaptionTokens::fill_in_order(int64_t first, const Tensor& ids) const {
  check_batch(ids, ids.shape()[0], width_);
  for (int64_t b = 0; b < ids.shape()[0]; ++b) read(first + b, ids.data<int32_t>() + b * width_);
}

}  // namespace ermoe
