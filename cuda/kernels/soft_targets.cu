// Label smoothing on the GPU: one pass of writing. Contract: ops/kernels/soft_targets.h.
#include "ops/kernels/soft_targets.h"

#include "cuda/device/elementwise.cuh"
#include "cuda/device/index.cuh"

namespace ermoe::cuda {
namespace {

template <typename T>
struct SoftTargets {
  int64_t classes;
  float hit, rest;
  const int32_t* labels;
  T* targets;
  template <int V>
  __device__ void run(int64_t i) const {
    auto [row, column] = divide(i, classes);
    Pack<T, V> out;
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const int64_t label = labels[row];
      out.v[k] = narrow<T>(label < 0 || label >= classes ? NAN : label == column ? hit : rest);
      if (++column == classes) {
        column = 0;
        if (k + 1 < V) ++row;  // the last pack may end with the last label
      }
    }
    store(targets + i, out);
  }
};

}  // namespace

template <typename T>
void soft_targets(const Stream& stream, const SoftTargetsDims& dims, const int32_t* labels, T* targets) {
  const double rest = dims.smoothing / static_cast<double>(dims.classes);
  const SoftTargets<T> work{dims.classes, static_cast<float>(1 - dims.smoothing + rest), static_cast<float>(rest), labels, targets};
  elementwise<T>(stream, dims.batch * dims.classes, work, "soft_targets", targets);
}

template void soft_targets(const Stream&, const SoftTargetsDims&, const int32_t*, float*);
template void soft_targets(const Stream&, const SoftTargetsDims&, const int32_t*, bf16*);

}  // namespace ermoe::cuda
