// Cutting images into patches on the GPU: a permutation of memory, bound by reading and writing each element once. A thread
// moves a run along a patch's last side, as long as 16 bytes and the side allow; runs are counted in the order of the
// patches, so that these are written or read in whole lines. Contract: ops/kernels/patch_embed.h.
#include "ops/kernels/patch_embed.h"

#include "cuda/device/pack.cuh"
#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"

#include <algorithm>
#include <type_traits>

namespace ermoe::cuda {
namespace {

constexpr int threads = 256;

/// Where the element `at` of the patches (batch, gx, gy, gz, channel, px, py, pz) lies in the images.
template <typename Index>
struct ImageIndex {
  Index channels, grid[3], patch[3];

  __device__ int64_t operator()(Index at) const {
    const auto take = [&](Index n) {
      const Index rest = at % n;
      at /= n;
      return rest;
    };
    const Index pz = take(patch[2]), py = take(patch[1]), px = take(patch[0]), c = take(channels);
    const Index gz = take(grid[2]), gy = take(grid[1]), gx = take(grid[0]), b = at;
    const Index x = gx * patch[0] + px, y = gy * patch[1] + py, z = gz * patch[2] + pz;
    return ((static_cast<int64_t>(b * channels + c) * (grid[0] * patch[0]) + x) * (grid[1] * patch[1]) + y) * (grid[2] * patch[2]) + z;
  }
};

template <typename T, int V, typename Index>
__global__ void __launch_bounds__(threads) gather_kernel(int64_t runs, ImageIndex<Index> index, const T* x, T* y) {
  const int64_t run = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
  if (run >= runs) return;
  store(y + run * V, load<V>(x + index(static_cast<Index>(run * V))));
}

template <typename T, int V, Accumulate Mode, typename Index>
__global__ void __launch_bounds__(threads) scatter_kernel(int64_t runs, ImageIndex<Index> index, const T* dy, T* dx) {
  const int64_t run = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
  if (run >= runs) return;
  auto value = load<V>(dy + run * V);
  T* const to = dx + index(static_cast<Index>(run * V));
  if constexpr (Mode == Accumulate::add) {
    const auto before = load<V>(to);
#pragma unroll
    for (int k = 0; k < V; ++k) value.v[k] = narrow<T>(widen(before.v[k]) + widen(value.v[k]));
  }
  store(to, value);
}

/// Calls fn(V as a constant, an index function) with the longest run that all addresses allow and 32-bit indices where they
/// are enough.
template <typename T, typename Fn>
void with_runs(const PatchDims& d, const T* a, const T* b, Fn&& fn) {
  const int64_t numel = d.batch * d.tokens() * d.channels * d.patch_elements();
  if (numel == 0) return;
  const auto call = [&]<int V>(std::integral_constant<int, V> width) {
    const auto indexed = [&]<typename Index>(Index) {
      ImageIndex<Index> index{.channels = static_cast<Index>(d.channels), .grid = {}, .patch = {}};
      for (int axis = 0; axis < 3; ++axis) {
        index.grid[axis] = static_cast<Index>(d.grid[axis]);
        index.patch[axis] = static_cast<Index>(d.patch[axis]);
      }
      fn(width, numel / V, index);
    };
    numel <= INT32_MAX ? indexed(uint32_t{}) : indexed(int64_t{});
  };
  const auto bits = reinterpret_cast<uintptr_t>(a) | reinterpret_cast<uintptr_t>(b) | static_cast<uintptr_t>(d.patch[2]) * sizeof(T);
  if (bits % 16 == 0) return call(std::integral_constant<int, pack_width<T>>{});
  if (bits % 8 == 0) return call(std::integral_constant<int, pack_width<T> / 2>{});
  call(std::integral_constant<int, 1>{});
}

unsigned blocks_of(int64_t runs) { return static_cast<unsigned>((runs + threads - 1) / threads); }

}  // namespace

template <typename T>
void extract_patches_forward(const Stream& stream, const PatchDims& dims, const T* x, T* y) {
  with_runs<T>(dims, x, y, [&](auto width, int64_t runs, const auto& index) {
    gather_kernel<T, decltype(width)::value><<<blocks_of(runs), threads, 0, native(stream)>>>(runs, index, x, y);
    cuda_check(cudaGetLastError(), "extract_patches_forward");
  });
}

template <typename T>
void extract_patches_backward(const Stream& stream, const PatchDims& dims, const T* dy, T* dx, Accumulate mode) {
  with_runs<T>(dims, dy, static_cast<const T*>(dx), [&](auto width, int64_t runs, const auto& index) {
    constexpr int V = decltype(width)::value;
    if (mode == Accumulate::add)
      scatter_kernel<T, V, Accumulate::add><<<blocks_of(runs), threads, 0, native(stream)>>>(runs, index, dy, dx);
    else
      scatter_kernel<T, V, Accumulate::overwrite><<<blocks_of(runs), threads, 0, native(stream)>>>(runs, index, dy, dx);
    cuda_check(cudaGetLastError(), "extract_patches_backward");
  });
}

template void extract_patches_forward(const Stream&, const PatchDims&, const float*, float*);
template void extract_patches_forward(const Stream&, const PatchDims&, const bf16*, bf16*);
template void extract_patches_backward(const Stream&, const PatchDims&, const float*, float*, Accumulate);
template void extract_patches_backward(const Stream&, const PatchDims&, const bf16*, bf16*, Accumulate);

}  // namespace ermoe::cuda
