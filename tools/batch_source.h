// Where training and evaluation take their batches from: files that a loader decodes ahead and that travel to the device
// beside the step before, or a data set that lies on the device already. Both give the same batches.
// Read next: tools/pipeline.h.
#pragma once

#include "core/context.h"
#include "data/loader.h"
#include "data/resident.h"

#include <functional>
#include <memory>
#include <span>
#include <vector>

namespace ermoe {

/// A batch on the device of its context.
struct DeviceBatch {
  Tensor images;                 // (B, S, S, channels) u8
  Tensor labels;                 // (B) i32
  Tensor tokens;                 // (B, W) i32: a caption an image, where there are any
  std::vector<int64_t> indices;  // (B) samples of the data set, after replacement of broken ones
  Cursor at;
};

/// Captions (B, W) i32, on the host, of a training batch's samples at its place in the run. They travel to the device with the images, one
/// batch ahead: on their own they would wait for the step before.
using CaptionsOf = std::function<Tensor(std::span<const int64_t> samples, Cursor at)>;

/// Endless, in the order and by the rules of data/loader.h.
class BatchSource {
 public:
  virtual ~BatchSource() = default;
  virtual DeviceBatch next(const ExecContext& ctx) = 0;
  /// Starts to bring the next batch, if it can be had at once. Before long work is queued: an upload waits for what was queued.
  virtual void prefetch(const ExecContext&) {}
  /// Of the batch that `next` will give: what a checkpoint stores.
  virtual Cursor cursor() const = 0;
  virtual void seek(Cursor at) = 0;
  virtual int64_t steps_per_epoch() const = 0;
  /// Total time that `next` waited for files.
  virtual double wait_seconds() const = 0;
};

/// Batches of `loader`. On a GPU the next one, where the loader has it, is uploaded beside what the stream is doing.
std::unique_ptr<BatchSource> streamed_batches(std::unique_ptr<Loader> loader, CaptionsOf captions = {});

/// Batches of a data set on the device. `host` is where indices are made; both must outlive the source.
std::unique_ptr<BatchSource> resident_batches(const ResidentSamples& resident, const Sampler& sampler, CachingAllocator& host,
                                              Cursor start = {}, CaptionsOf captions = {});

}  // namespace ermoe
