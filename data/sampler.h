// Which samples a rank sees in which step. The order is a keyed permutation that is evaluated, not stored: the indices
// of any (seed, epoch, step) follow directly, so a run restarts in mid-epoch by naming its cursor.
// Read next: data/loader.h.
#pragma once

#include "core/batch_part.h"
#include "core/context.h"

#include <cstdint>
#include <vector>

namespace ermoe {

/// A bijection on [0, n), different for every key: a Feistel network over the next power of two, with Philox as its
/// round function, walked until it lands below n (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002).
class Permutation {
 public:
  Permutation(int64_t n, RngKey key);
  /// The image of i, for 0 <= i < n. Expected cost: below two passes of the network.
  int64_t operator()(int64_t i) const;

 private:
  uint64_t encrypt(uint64_t value) const;

  uint64_t n_;
  RngKey key_;
  int low_bits_;
  int high_bits_;
};

/// The place of a batch in a run; what a checkpoint stores.
struct Cursor {
  int64_t epoch = 0;
  int64_t step = 0;  // within the epoch
  bool operator==(const Cursor&) const = default;
};

struct SamplerOptions {
  uint64_t seed = 0;
  int rank = 0;
  int world = 1;
  int64_t batch = 1;  // samples of all ranks together in one step
  Mode mode = Mode::train;
};

/// Training: a new permutation each epoch; step s takes `batch` consecutive places of it, of which rank r has its part
/// (`part_of_batch`). The last incomplete batch is dropped, so a run sees the same samples in a step whatever the number of ranks.
/// Evaluation: the order of the data set, each sample once over all ranks; a rank's part of the last batch may be short or empty, but
/// every rank has the same number of steps.
class Sampler {
 public:
  /// Throws `InputError` where training has fewer samples than one batch, or a batch fewer than there are ranks.
  Sampler(int64_t size, const SamplerOptions& options);

  int64_t size() const { return size_; }
  const SamplerOptions& options() const { return options_; }
  int64_t steps_per_epoch() const { return steps_; }
  /// This rank's part of the batch of one step.
  BatchPart part(Cursor at) const;
  /// This rank's sample indices in one step, from nothing but the arguments. Throws `Error` where the step is not in the epoch.
  std::vector<int64_t> indices(Cursor at) const;
  /// The cursor one step on, over the end of an epoch.
  Cursor after(Cursor at) const;

 private:
  int64_t size_;
  SamplerOptions options_;
  int64_t steps_;
};

}  // namespace ermoe
