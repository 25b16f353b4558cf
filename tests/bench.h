// What every test that runs ops stands on: poisoned memory, a workspace, one rank, a key, random tensors, error measures.
#pragma once

#include "core/context.h"
#include "core/flat.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace ermoe::testing {

/// Everything a test needs to run ops: poisoned memory, a workspace, one rank, a key.
struct TestBench {
  explicit TestBench(uint64_t seed = 1) {
    ctx.allocator = &allocator;
    ctx.workspace = &workspace;
    ctx.comm = ctx.expert_ranks = ctx.replica_ranks = &comm;
    ctx.rng = RngKey{seed};
    ctx.mode = Mode::train;
  }
  CachingAllocator allocator{make_host_source(), Fill::poison};
  Workspace workspace{allocator};
  SelfCommunicator comm;
  ExecContext ctx;
};

struct OpInput {
  Shape shape;
  enum class Fill { normal, positive, unit } fill = Fill::normal;  // N(0,1) · 0.5 + |N(0,1)| · uniform [0,1)
  /// f32 where the op computes in bf16: scores, weights of tokens, anything an op keeps in `Master<T>`.
  enum class Precision { compute, master } precision = Precision::compute;
};

/// A host tensor in the context's memory.
inline Tensor to_device(const ExecContext& ctx, const Tensor& host) { return on_device_of(ctx, host); }

/// Memory of the host for what is then brought to a device.
inline CachingAllocator& host_memory() {
  static CachingAllocator allocator(make_host_source(), Fill::poison);
  return allocator;
}

/// The same numbers in every dtype and on every device, but for their rounding.
inline Tensor random_input(const ExecContext& ctx, const OpInput& input, DType dtype, RngKey key) {
  const Tensor wide = Tensor::empty(host_memory(), input.shape, DType::f64);
  for (int64_t i = 0; i < wide.numel(); ++i) {
    double v = normal(key, static_cast<uint64_t>(i));
    if (input.fill == OpInput::Fill::positive) v = 0.5 + std::abs(v);
    if (input.fill == OpInput::Fill::unit) v = uniform(key, static_cast<uint64_t>(i));
    wide.data<double>()[i] = static_cast<double>(static_cast<float>(v));
  }
  const DType own = input.precision == OpInput::Precision::master ? master_of(dtype) : dtype;
  const Tensor t = Tensor::empty(ctx.device.is_cuda() ? host_memory() : *ctx.allocator, input.shape, own);
  convert(wide, t);
  return to_device(ctx, t);
}

inline std::vector<double> to_doubles(const Tensor& t) {
  std::vector<double> values(static_cast<size_t>(t.numel()));
  const Tensor host = t.device().is_cuda() ? t.to(host_memory()) : t, wide = Tensor::empty(host_memory(), t.shape(), DType::f64);
  convert(host, wide);
  std::copy_n(wide.data<double>(), t.numel(), values.begin());
  return values;
}

/// What bf16 keeps of the elements of a tensor of any device.
inline std::vector<double> bf16_values(const Tensor& t) {
  const Tensor host = t.device().is_cuda() ? t.to(host_memory()) : t, narrow = Tensor::empty(host_memory(), t.shape(), DType::bf16);
  convert(host, narrow);
  return to_doubles(narrow);
}

/// The elements of a tensor of any device.
template <typename T>
std::vector<T> to_vector(const Tensor& t) {
  const Tensor host = t.device().is_cuda() ? t.to(host_memory()) : t;
  return {host.data<T>(), host.data<T>() + host.numel()};
}

/// Σ(a-b)² / Σb²; infinite where a NaN is found.
inline double normalised_error(const std::vector<double>& a, const std::vector<double>& b) {
  double difference = 0, reference = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i]) || std::isnan(b[i])) return INFINITY;
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    reference += b[i] * b[i];
  }
  return reference > 0 ? difference / reference : difference;
}

}  // namespace ermoe::testing
