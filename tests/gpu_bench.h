// A bench on a GPU, for tests that run ops there: one GPU a process, memory poisoned anew for each bench. In builds without
// CUDA this header is empty. ERMOE_GPU_KERNELS=ampere runs the kernels of older GPUs; ERMOE_TEST_SIZES=small leaves out what takes
// minutes under a tool that watches every access.
#pragma once

#include "tests/bench.h"

#if defined(ERMOE_WITH_CUDA)

#include "core/gpu_generations.h"
#include "cuda/factory.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string_view>
#include <vector>

namespace ermoe::testing {

/// Null where there is none that this build has code for.
inline Gpu* test_gpu() {
  static const std::unique_ptr<Gpu> gpu = [] {
    const FoundGpus found = find_gpus();
    const bool usable = !found.gpus.empty() && runs_on(found.built_for, found.gpus[0].major, found.gpus[0].minor);
    return usable ? make_gpu(0) : nullptr;
  }();
  return gpu.get();
}

/// Whether tests of many or large shapes should keep to few and small ones.
inline bool small_sizes() {
  const char* sizes = std::getenv("ERMOE_TEST_SIZES");
  return sizes != nullptr && std::string_view(sizes) == "small";
}

/// Of shapes those of at most 16 Ki elements, where small ones are wanted.
inline std::vector<Shape> bearable(std::vector<Shape> shapes) {
  if (small_sizes()) std::erase_if(shapes, [](const Shape& shape) { return shape.numel() > 16384; });
  return shapes;
}

struct GpuBench {
  explicit GpuBench(uint64_t seed = 1) {
    ctx.allocator = &allocator;
    ctx.host = &host_memory();
    ctx.workspace = &workspace;
    ctx.comm = ctx.expert_ranks = ctx.replica_ranks = &comm;
    ctx.device = allocator.device();
    ctx.stream = test_gpu()->stream();
    ctx.rng = RngKey{seed};
    ctx.mode = Mode::train;
  }
  ~GpuBench() { test_gpu()->synchronize(); }
  CachingAllocator allocator{test_gpu()->memory(), Fill::poison};
  Workspace workspace{allocator};
  SelfCommunicator comm;
  ExecContext ctx;
};

/// 1 - 2<a,b> / (<a,a> + <b,b>); infinite where a NaN is found.
inline double dissimilarity(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return INFINITY;
  double both = 0, squares = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i]) || std::isnan(b[i])) return INFINITY;
    both += a[i] * b[i];
    squares += a[i] * a[i] + b[i] * b[i];
  }
  return squares > 0 ? 1 - 2 * both / squares : 0;
}

}  // namespace ermoe::testing

/// Runs a statement where there is a GPU, otherwise skips the test.
#define ERMOE_NEEDS_GPU(statement)                                         \
  do {                                                                     \
    if (::ermoe::testing::test_gpu() == nullptr) GTEST_SKIP() << "no GPU"; \
    statement;                                                             \
  } while (false)

#endif
