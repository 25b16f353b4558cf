// What every program holds while it runs: memory, scratch, ranks, and the context made of them. Made first, so that it is
// destroyed last.
#pragma once

#include "core/context.h"

namespace ermoe {

struct Engine {
  /// Sets the number of threads, at least 1; the BLAS under our loops keeps to one each.
  explicit Engine(int threads, uint64_t seed);
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  CachingAllocator allocator;
  CachingAllocator staging;  // host memory of batches that loaders make ahead: how much that is depends on timing
  Workspace workspace;
  SelfCommunicator comm;
  ExecContext ctx;
};

}  // namespace ermoe
