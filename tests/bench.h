// What every test that runs ops stands on: poisoned memory, a workspace, one rank, a key, random tensors, error measures.
#pragma once

#include "core/context.h"

#include <cmath>
#include <vector>

namespace ermoe::testing {

/// Everything a test needs to run ops: poisoned memory, a workspace, one rank, a key.
struct TestBench {
  explicit TestBench(uint64_t seed = 1) {
    ctx.allocator = &allocator;
    ctx.workspace = &workspace;
    ctx.comm = &comm;
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
};

inline Tensor random_input(const ExecContext& ctx, const OpInput& input, DType dtype, RngKey key) {
  Tensor t = ctx.empty(input.shape, dtype);
  dispatch_float(dtype, "test", [&](auto tag) {
    using T = decltype(tag);
    for (int64_t i = 0; i < t.numel(); ++i) {
      double v = normal(key, static_cast<uint64_t>(i));
      if (input.fill == OpInput::Fill::positive) v = 0.5 + std::abs(v);
      if (input.fill == OpInput::Fill::unit) v = uniform(key, static_cast<uint64_t>(i));
      t.data<T>()[i] = static_cast<T>(static_cast<float>(v));  // the same numbers in both precisions
    }
  });
  return t;
}

inline std::vector<double> to_doubles(const Tensor& t) {
  std::vector<double> values(static_cast<size_t>(t.numel()));
  dispatch_float(t.dtype(), "test", [&](auto tag) {
    for (int64_t i = 0; i < t.numel(); ++i) values[static_cast<size_t>(i)] = t.data<decltype(tag)>()[i];
  });
  return values;
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
