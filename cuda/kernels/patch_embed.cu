// Cutting images into patches on the GPU: a permutation of memory, bound by reading and writing each element once. A thread
// moves a run along a patch's last side, as long as 16 bytes and the side allow; runs are counted in the order of the
// patches, so that these are written or read in whole lines. Patches that overlap are made element by element, and backward each
// element of an image gathers what the patches around it have of it. Contract: ops/kernels/patch_embed.h.
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

/// Element `i` of patches that overlap: what lies there in the images, or 0 beyond their edges.
template <typename T>
__global__ void __launch_bounds__(threads) overlapping_gather_kernel(PatchDims d, int64_t numel, const T* x, T* y) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
  if (i >= numel) return;
  int64_t rest = i, at[3];
  const auto take = [&](int64_t n) {
    const int64_t own = rest % n;
    rest /= n;
    return own;
  };
  for (int axis = 2; axis >= 0; --axis) at[axis] = take(d.extent(axis)) - d.margin[axis];
  const int64_t channel = take(d.channels);
  for (int axis = 2; axis >= 0; --axis) at[axis] += take(d.grid[axis]) * d.patch[axis];
  int64_t from = rest * d.channels + channel;
  bool inside = true;
  for (int axis = 0; axis < 3; ++axis) {
    inside = inside && at[axis] >= 0 && at[axis] < d.side(axis);
    from = from * d.side(axis) + at[axis];
  }
  y[i] = inside ? x[from] : narrow<T>(0.0f);
}

/// Element `i` of the images: the sum over the patches that have it, in their order.
template <typename T>
__global__ void __launch_bounds__(threads) overlapping_sum_kernel(PatchDims d, int64_t numel, const T* dy, T* dx, Accumulate mode) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
  if (i >= numel) return;
  int64_t rest = i, at[3], first[3], last[3];
  for (int axis = 2; axis >= 0; --axis) {
    at[axis] = rest % d.side(axis);
    rest /= d.side(axis);
    first[axis] = max(int64_t{0}, (at[axis] - d.margin[axis]) / d.patch[axis]);
    last[axis] = min(d.grid[axis] - 1, (at[axis] + d.margin[axis]) / d.patch[axis]);
  }
  const int64_t channel = rest % d.channels, b = rest / d.channels;
  float sum = 0;
  for (int64_t x = first[0]; x <= last[0]; ++x)
    for (int64_t y = first[1]; y <= last[1]; ++y)
      for (int64_t z = first[2]; z <= last[2]; ++z) {
        const int64_t place[3] = {x, y, z};
        int64_t from = (((b * d.grid[0] + x) * d.grid[1] + y) * d.grid[2] + z) * d.channels + channel;
        for (int axis = 0; axis < 3; ++axis) from = from * d.extent(axis) + at[axis] - place[axis] * d.patch[axis] + d.margin[axis];
        sum += widen(dy[from]);
      }
  dx[i] = narrow<T>(mode == Accumulate::add ? widen(dx[i]) + sum : sum);
}

unsigned blocks_of(int64_t runs) { return static_cast<unsigned>((runs + threads - 1) / threads); }

}  // namespace

template <typename T>
void extract_patches_forward(const Stream& stream, const PatchDims& dims, const T* x, T* y) {
  if (dims.overlap()) {
    const int64_t numel = dims.batch * dims.tokens() * dims.channels * dims.patch_elements();
    if (numel > 0) overlapping_gather_kernel<<<blocks_of(numel), threads, 0, native(stream)>>>(dims, numel, x, y);
    return cuda_check(cudaGetLastError(), "extract_patches_forward");
  }
  with_runs<T>(dims, x, y, [&](auto width, int64_t runs, const auto& index) {
    gather_kernel<T, decltype(width)::value><<<blocks_of(runs), threads, 0, native(stream)>>>(runs, index, x, y);
    cuda_check(cudaGetLastError(), "extract_patches_forward");
  });
}

template <typename T>
void extract_patches_backward(const Stream& stream, const PatchDims& dims, const T* dy, T* dx, Accumulate mode) {
  if (dims.overlap()) {
    const int64_t numel = dims.batch * dims.channels * dims.side(0) * dims.side(1) * dims.side(2);
    if (numel > 0) overlapping_sum_kernel<<<blocks_of(numel), threads, 0, native(stream)>>>(dims, numel, dy, dx, mode);
    return cuda_check(cudaGetLastError(), "extract_patches_backward");
  }
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
