#include "tools/engine.h"

#include <cblas.h>
#include <omp.h>

namespace ermoe {

Engine::Engine(int threads, uint64_t seed, DeviceChoice device, Ranks* ranks)
    : Engine(threads, seed, decide_device(device, ranks != nullptr ? &ranks->world() : nullptr), ranks) {}

Engine::Engine(int threads, uint64_t seed, const DeviceDecision& device, Ranks* ranks)
#if defined(ERMOE_WITH_CUDA)
    : gpu(device.gpu ? make_gpu(*device.gpu) : nullptr),
#else
    : gpu(nullptr),
#endif
      device_note(device.note),
      allocator(gpu ? gpu->memory() : make_host_source()),
      step_memory(gpu ? gpu->memory() : make_host_source()),
      host(make_host_source()),
      staging(gpu ? gpu->page_locked() : make_host_source()),
      workspace(allocator),
      host_workspace_(host),
      step_workspace_(step_memory),
      joined_(gpu && ranks != nullptr && ranks->world().size() > 1 ? gpu->join(ranks->world(), ranks->watch()) : nullptr) {
#if defined(OPENBLAS_VERSION)
  openblas_set_num_threads(1);  // ops/cpu/blas.cpp splits products over our own threads
#endif
  omp_set_num_threads(threads);  // after OpenBLAS, whose OpenMP build passes its own number on to OpenMP
  if (gpu) CachingAllocator::share(allocator, step_memory);
  ctx.allocator = &allocator;
  ctx.workspace = &workspace;
  ctx.comm = ctx.replica_ranks = joined_ ? joined_.get() : ranks != nullptr ? &ranks->world() : &alone;
  ctx.expert_ranks = &alone;
  ctx.rng = RngKey{seed};
  host_ctx_ = ctx;
  host_ctx_.allocator = &host;
  host_ctx_.workspace = &host_workspace_;
  ctx.device = allocator.device();
  if (gpu) ctx.host = &host;
  if (gpu) ctx.stream = gpu->stream();
  step_ = ctx;
  step_.allocator = &step_memory;
  step_.workspace = &step_workspace_;
}

void Engine::spread_experts(int64_t together, int64_t chunks) {
  const int world = ctx.comm->size();
  check_input(
      world % together == 0,
      "parallel.expert: {} rank{} cannot be parted into groups of {}; a run that is resumed keeps its own number unless --parallel.expert "
      "is given",
      world, world == 1 ? "" : "s", together);
  expert_ranks_.reset();
  replica_ranks_.reset();
  if (together > 1) {
    expert_ranks_ = ctx.comm->split(static_cast<int>(ctx.comm->rank() / together));
    replica_ranks_ = ctx.comm->split(static_cast<int>(ctx.comm->rank() % together));
  }
  for (ExecContext* c : {&ctx, &host_ctx_, &step_}) {
    c->expert_chunks = chunks;
    c->expert_ranks = expert_ranks_ ? expert_ranks_.get() : &alone;
    c->replica_ranks = replica_ranks_ ? replica_ranks_.get() : c->comm;
  }
}

AllocatorStats Engine::memory() const {
  AllocatorStats all = allocator.stats();
  const AllocatorStats steps = step_memory.stats();
  all.live += steps.live;
  all.peak += steps.peak;
  all.reserved += steps.reserved;
  all.source_calls += steps.source_calls;
  return all;
}

size_t Engine::room() const {
  const AllocatorStats all = memory();
  return allocator.source().available() + all.reserved - all.live;
}

void Engine::reset_peak() {
  allocator.reset_peak();
  step_memory.reset_peak();
}

DType Engine::compute_dtype(Precision precision) const {
  check_input(gpu || precision != Precision::bf16, "train.precision: a CPU computes in f32; bf16 wants a GPU");
  return gpu && precision != Precision::f32 ? DType::bf16 : DType::f32;
}

std::string Engine::device_name() const {
  if (gpu) return fmt::format("{}, {:.1f} GiB", gpu->info().name, static_cast<double>(gpu->info().memory_bytes) / 1073741824.0);
  return fmt::format("CPU, {} thread{}", omp_get_max_threads(), omp_get_max_threads() == 1 ? "" : "s");
}

}  // namespace ermoe
