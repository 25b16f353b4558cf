// What anything needs in order to run, passed first and by reference. There are no globals: whoever holds an
// ExecContext knows the device, the memory, the random key, the tape and the other ranks.
#pragma once

#include "core/batch_part.h"
#include "core/comm.h"
#include "core/device.h"
#include "core/op_ranges.h"
#include "core/rng.h"
#include "core/tensor.h"
#include "core/workspace.h"

namespace ermoe {

class Tape;  // autograd/tape.h; core only carries the pointer

enum class Mode { eval, train };

struct ExecContext {
  CachingAllocator* allocator = nullptr;  // of the device
  CachingAllocator* host = nullptr;       // memory of the host beside it; null on a CPU
  Workspace* workspace = nullptr;
  Communicator* comm = nullptr;           // of all ranks
  Communicator* expert_ranks = nullptr;   // of those that hold a layer's experts together, each some of them
  Communicator* replica_ranks = nullptr;  // of those that hold the same experts
  int64_t expert_chunks = 1;              // in which a layer's rows travel between the expert ranks
  Tape* tape = nullptr;                   // null: no gradients
  OpListener* listener = nullptr;         // of the ops that run; null: nobody asks
  Device device;
  Stream stream;
  RngKey rng;
  BatchPart part;                 // of the batch that the ranks share
  const int64_t* draw = nullptr;  // in the device's memory: folded into every key drawn from inside a step; null: nothing is
  Mode mode = Mode::eval;

  bool training() const { return mode == Mode::train; }
  ExecContext with_tape(Tape* other) const {
    ExecContext ctx = *this;
    ctx.tape = other;
    return ctx;
  }
  ExecContext with_rng(RngKey key) const {
    ExecContext ctx = *this;
    ctx.rng = key;
    return ctx;
  }

  /// What an op draws its random numbers from, given its own key.
  DrawKey drawing(RngKey key) const { return {key, draw}; }

  /// Uninitialised tensor on this context's device.
  Tensor empty(const Shape& shape, DType dtype, const char* scope = "activation") const {
    return Tensor::empty(*allocator, shape, dtype, scope);
  }
};

/// `t` in the context's memory: itself, or a copy where the context is a GPU's and `t` lies on the host.
inline Tensor on_device_of(const ExecContext& ctx, const Tensor& t) { return t.device() == ctx.device ? t : t.to(*ctx.allocator); }

/// `t` where the host can read it. Waits for a GPU: for metrics and files, not for the inside of a step.
inline Tensor on_host(const ExecContext& ctx, const Tensor& t) { return t.device().is_cuda() ? t.to(*ctx.host, "host copy") : t; }

/// Runs the branch of the context's device. `on_cuda` is a generic lambda that takes an ignored tag: a build
/// without CUDA never instantiates it, so the CUDA functions it names need not exist. The caller's file names the op to the
/// context's listener.
template <typename CpuFn, typename CudaFn>
void on_device(const ExecContext& ctx, CpuFn&& on_cpu, [[maybe_unused]] CudaFn&& on_cuda,
               const std::source_location& where = std::source_location::current()) {
  const OpRange range(ctx.listener, where);
  if (!ctx.device.is_cuda()) return on_cpu();
#if defined(ERMOE_WITH_CUDA)
  on_cuda(0);
#else
  fail("[device] this build has no CUDA");
#endif
}

/// The same for elements of type T, inside `dispatch_compute`: CPUs compute in f32 and f64, GPUs in f32 and bf16. Both
/// branches take an ignored tag, for the same reason.
template <typename T, typename CpuFn, typename CudaFn>
void on_device(const ExecContext& ctx, T, CpuFn&& on_cpu, [[maybe_unused]] CudaFn&& on_cuda,
               const std::source_location& where = std::source_location::current()) {
  const OpRange range(ctx.listener, where);
  constexpr DType dtype = DTypeOf<T>::value;
  if (!ctx.device.is_cuda()) {
    if constexpr (dtype != DType::bf16)
      return on_cpu(0);
    else
      fail("[device] a CPU computes in f32 or f64, not in {}", name_of(dtype));
  }
#if defined(ERMOE_WITH_CUDA)
  if constexpr (dtype != DType::f64)
    on_cuda(0);
  else
    fail("[device] a GPU computes in f32 or bf16, not in {}", name_of(dtype));
#else
  fail("[device] this build has no CUDA");
#endif
}

}  // namespace ermoe
