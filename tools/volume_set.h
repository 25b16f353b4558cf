// Subjects with their volumes as a model takes them: read and prepared once by several threads, and gathered into batches ahead of those
// who ask. Read first: data/volume_reader.h; next: tools/volume_pipeline.h.
#pragma once

#include "core/tensor.h"
#include "data/dataset.h"
#include "data/volume_reader.h"

#include <future>
#include <string>
#include <vector>

namespace ermoe {

/// Subjects with their prepared volumes.
struct VolumeSet {
  std::vector<Subject> subjects;  // those whose volumes could be read
  Tensor volumes;                 // (n, 1, nz, ny, nx) f32
  Tensor labels;                  // (n, nz, ny, nx) f32; undefined without regions

  int64_t size() const { return std::ssize(subjects); }
  std::vector<double> ages() const;
};

/// Bytes that so many prepared volumes take, maps of regions included.
double prepared_bytes(const VolumeFormat& format, int64_t volumes);

/// nx, ny, nz of a window that holds the brains of some of these subjects, the first 32 in even steps. Throws `InputError` as
/// `VolumeReader` does.
std::array<int64_t, 3> largest_brain(const VolumeReader& reader, const std::vector<Subject>& subjects, int threads);

/// Prepares volumes by several threads. Those that cannot be read cost their subjects.
class VolumeLoader {
 public:
  /// The volumes' memory is taken from `memory`. The reader must outlive this.
  VolumeLoader(const VolumeReader& reader, CachingAllocator& memory, int threads, double max_bad, WarnFn warn);

  /// Says every few seconds how far it is, and what is wrong with whom. Throws `InputError` where that is a larger share than `max_bad`.
  VolumeSet load(const std::vector<Subject>& subjects);
  /// One sentence about all volumes loaded so far that look as if their skulls were still there; nothing where none does.
  std::string doubts() const;

 private:
  struct Progress;
  void prepare(const Subject& subject, const VolumeSet& into, int64_t row, Progress& progress) const;

  const VolumeReader& reader_;
  CachingAllocator& memory_;
  int threads_;
  double max_bad_;
  WarnFn warn_;
  int64_t looked_at_ = 0;
  std::vector<std::pair<std::string, std::string>> doubts_;  // subjects, sentences
};

/// Some volumes of a set.
struct VolumeRows {
  Tensor volumes, labels;  // (B, 1, nz, ny, nx), (B, nz, ny, nx) or undefined
};

/// Gathers rows of a set that lies in host memory, those of the next batch while the one before is worked on: where they come from a disk,
/// nobody waits for that.
class RowsAhead {
 public:
  /// `memory`: the host's, where rows are gathered.
  explicit RowsAhead(CachingAllocator& memory) : memory_(&memory) {}

  /// The rows asked for: those that were begun, else gathered now.
  VolumeRows take(const VolumeSet& set, const std::vector<int64_t>& rows);
  /// Begins to gather on a thread of its own. The set stays as it is until they are taken, or others are, or this ends.
  void begin(const VolumeSet& set, std::vector<int64_t> rows);
  /// Total time that `take` waited.
  double wait_seconds() const { return waited_; }

 private:
  CachingAllocator* memory_;
  std::vector<int64_t> rows_;
  Tensor of_;                       // the volumes that they are rows of
  std::future<VolumeRows> coming_;  // last: its end waits for the thread
  double waited_ = 0;
};

}  // namespace ermoe
