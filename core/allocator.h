// Who gives out memory. `CachingAllocator` keeps freed blocks and hands them out again, so that a training step
// whose shapes repeat never goes back to the system. Read next: core/tensor.h, core/workspace.h.
#pragma once

#include "core/device.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace ermoe {

/// What allocators are asked for: raw blocks of one device's memory, 64-byte aligned, and the ways in and out of it.
/// Whatever moves or changes bytes does so in the order of `stream`.
class MemorySource {
 public:
  virtual ~MemorySource() = default;
  virtual Device device() const = 0;
  virtual Stream stream() const = 0;
  /// Null on failure.
  virtual void* allocate(size_t bytes) = 0;
  virtual void release(void* block, size_t bytes) noexcept = 0;
  /// Bytes that are still to be had, about.
  virtual size_t available() const = 0;

  /// From host memory, which may change once this returned.
  virtual void upload(void* to, const void* host, size_t bytes) = 0;
  /// Like `upload`, but beside the work of `stream`, behind what it was given so far. Until `finish_uploads` the host's bytes
  /// must stay as they are and the others may not be read. What lies in page-locked memory is copied without the processor.
  virtual void start_upload(void* to, const void* host, size_t bytes) { upload(to, host, bytes); }
  /// Waits for every upload that was started.
  virtual void finish_uploads() {}
  /// To host memory; the bytes are there once this returned.
  virtual void download(void* host, const void* from, size_t bytes) = 0;
  /// Within this memory; the two may overlap on the host alone.
  virtual void copy(void* to, const void* from, size_t bytes) = 0;
  /// Sets every byte.
  virtual void set(void* to, uint8_t byte, size_t bytes) = 0;
};

/// Host memory from the system. Blocks of 2 MiB and more ask for huge pages.
std::unique_ptr<MemorySource> make_host_source();

struct Block {
  void* data = nullptr;
  size_t bytes = 0;        // rounded size, what the free list sorts by
  const char* scope = "";  // whom it was given to, for statistics
};

struct AllocatorStats {
  size_t live = 0;           // bytes in use
  size_t peak = 0;           // highest `live` since the last reset_peak()
  size_t reserved = 0;       // bytes held from the source, in use or cached
  int64_t source_calls = 0;  // how often the source was asked
};

/// `poison` fills every block handed out with NaN bit patterns, so that a kernel that leaves a part of its output
/// unwritten, or reads what it should not, is seen by its test.
enum class Fill { none, poison };

/// Best fit over cached blocks; a block up to twice the wanted size is taken. Thread-safe.
/// It must outlive every tensor it gave out memory for.
///
/// When its source has no more, it gives its cached blocks back and tries again; then another allocator of the same device does,
/// if `share` made the two known to each other.
///
/// With ERMOE_GPU_MEMORY=exact in the environment a GPU's blocks are as large as asked for, not cached and not filled:
/// slow, but a memory checker then sees a read behind a tensor, of a freed one, or of bytes that nobody wrote.
class CachingAllocator {
 public:
  explicit CachingAllocator(std::unique_ptr<MemorySource> source, Fill fill = Fill::none);
  ~CachingAllocator();
  CachingAllocator(const CachingAllocator&) = delete;
  CachingAllocator& operator=(const CachingAllocator&) = delete;

  Device device() const { return device_; }
  MemorySource& source() const { return *source_; }
  Fill fill() const { return fill_; }
  /// Whether every block is one of the source's own, of the size that was asked for.
  bool exact() const { return exact_; }
  /// `scope` is a string literal that names the user in statistics.
  /// Throws `OutOfMemory` with what the device has free and the largest users when the source has no more.
  Block allocate(size_t bytes, const char* scope);
  void release(const Block& block) noexcept;

  AllocatorStats stats() const;
  /// Live bytes by scope, largest first.
  std::vector<std::pair<std::string, size_t>> users() const;
  void reset_peak();
  /// Gives every cached block back to the source; none while the cache is kept.
  void trim();

  /// Makes the two give back for each other. Both must live as long as either allocates.
  static void share(CachingAllocator& a, CachingAllocator& b);

  /// While the result lives, no cached block goes back to the source: recorded work goes on using blocks that were given back
  /// to this allocator. `let_go` is called when memory runs out; it may end the result's life, or leave it.
  [[nodiscard]] std::shared_ptr<const void> keep_cache(std::function<void()> let_go);

 private:
  void* take_from_source(size_t bytes, const char* scope, std::unique_lock<std::mutex>& lock);
  [[noreturn]] void refuse(size_t bytes, const char* scope) const;
  void give_back();

  std::unique_ptr<MemorySource> source_;
  Device device_;
  bool exact_;
  Fill fill_;
  mutable std::mutex mutex_;
  std::multimap<size_t, void*> free_;
  std::map<const char*, size_t> live_by_scope_;
  AllocatorStats stats_;
  CachingAllocator* other_ = nullptr;
  std::list<std::function<void()>> keepers_;
};

}  // namespace ermoe
