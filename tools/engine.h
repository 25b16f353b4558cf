// What every program holds while it runs: the device with its memory and scratch, ranks, and the context made of them. Made
// first, so that it is destroyed last.
#pragma once

#include "core/context.h"
#include "core/ranks.h"
#include "cuda/factory.h"
#include "tools/device_choice.h"
#include "tools/run_config.h"

#include <memory>
#include <string>

namespace ermoe {

struct Engine {
  /// Sets the number of threads, at least 1; the BLAS under our loops keeps to one each. Throws InputError where a GPU is
  /// asked for and there is none that can be used.
  /// Of several `ranks` all make one at the same time: each uses a GPU of its own, or all use CPUs. They must outlive this.
  Engine(int threads, uint64_t seed, DeviceChoice device, Ranks* ranks = nullptr);
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  /// A context in host memory, where models get their first values; `ctx` itself on a CPU.
  const ExecContext& host_ctx() const { return gpu ? host_ctx_ : ctx; }
  /// What ops compute in; throws InputError where the device cannot.
  DType compute_dtype(Precision precision) const;
  /// "CPU, 2 threads", "NVIDIA H100 80GB HBM3, 79.2 GiB".
  std::string device_name() const;

  const std::unique_ptr<Gpu> gpu;  // null: the CPU
  const std::string device_note;   // what the user should know about the choice of device, or empty
  CachingAllocator allocator;
  CachingAllocator step_memory;  // of a GPU's training steps alone: recorded ones go on using it; empty on a CPU
  CachingAllocator host;         // memory beside a GPU's: first values of models, copies for files and metrics
  CachingAllocator staging;      // of batches that loaders make ahead, page-locked where there is a GPU; how much depends on timing
  Workspace workspace;
  SelfCommunicator alone;  // where there are no other ranks
  ExecContext ctx;

  /// From here on so many ranks, side by side, hold a layer's experts together, to whom rows travel in so many chunks; the number of
  /// ranks divides that of all. All ranks call it, while there is no model or recorded work of this engine.
  void spread_experts(int64_t ranks, int64_t chunks);

  /// A context for training steps: `ctx` with memory of their own on a GPU.
  const ExecContext& step_ctx() const { return gpu ? step_ : ctx; }
  /// Of the device's memory, training steps' included.
  AllocatorStats memory() const;
  /// Bytes that can still be had: what the device has free and what is cached.
  size_t room() const;
  void reset_peak();

 private:
  Engine(int threads, uint64_t seed, const DeviceDecision& device, Ranks* ranks);

  Workspace host_workspace_;
  ExecContext host_ctx_;
  Workspace step_workspace_;
  ExecContext step_;
  const std::unique_ptr<Communicator> joined_;                  // of several ranks' GPUs
  std::unique_ptr<Communicator> expert_ranks_, replica_ranks_;  // parts of it, or of the ranks on CPUs
};

}  // namespace ermoe
