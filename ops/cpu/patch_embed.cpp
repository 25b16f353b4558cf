// Cutting images into patches on the CPU: a permutation of memory, moved in runs along the last axis of a patch. Patches that
// overlap are made element by element.
#include "ops/kernels/patch_embed.h"

#include "ops/cpu/store.h"

#include <algorithm>

namespace ermoe::cpu {
namespace {

/// Calls run(image offset, patch offset) for every run of patch[2] elements, where patches do not overlap. Each thread has whole
/// rows of patches, which are apart in both layouts.
template <typename Fn>
void for_each_run(const PatchDims& d, Fn run) {
  const int64_t rows = d.grid[0] * d.grid[1], width = d.side(2), elements = d.channels * d.patch_elements();
  const bool large = d.batch * d.tokens() * elements > 16384;
#pragma omp parallel for collapse(2) schedule(static) if (large)
  for (int64_t b = 0; b < d.batch; ++b) {
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t gx = row / d.grid[1], gy = row % d.grid[1];
      for (int64_t line = 0; line < d.channels * d.patch[0] * d.patch[1]; ++line) {
        const int64_t py = line % d.patch[1], px = line / d.patch[1] % d.patch[0], c = line / (d.patch[1] * d.patch[0]);
        const int64_t x = gx * d.patch[0] + px, y = gy * d.patch[1] + py;
        const int64_t image = (((b * d.channels + c) * d.side(0) + x) * d.side(1) + y) * width;
        const int64_t token = (b * rows + row) * d.grid[2];
        for (int64_t gz = 0; gz < d.grid[2]; ++gz) run(image + gz * d.patch[2], (token + gz) * elements + line * d.patch[2]);
      }
    }
  }
}

/// Calls write(patch offset, image offset or -1) for every element of patches that overlap.
template <typename Fn>
void for_each_element(const PatchDims& d, Fn write) {
  const int64_t elements = d.patch_elements(), tokens = d.tokens();
#pragma omp parallel for collapse(2) schedule(static) if (d.batch * tokens * d.channels * elements > 16384)
  for (int64_t b = 0; b < d.batch; ++b) {
    for (int64_t token = 0; token < tokens; ++token) {
      const int64_t place[3] = {token / d.grid[2] / d.grid[1], token / d.grid[2] % d.grid[1], token % d.grid[2]};
      for (int64_t i = 0; i < d.channels * elements; ++i) {
        const int64_t part[3] = {i / d.extent(2) / d.extent(1) % d.extent(0), i / d.extent(2) % d.extent(1), i % d.extent(2)};
        int64_t image = b * d.channels + i / elements;
        bool inside = true;
        for (int axis = 0; axis < 3; ++axis) {
          const int64_t at = place[axis] * d.patch[axis] + part[axis] - d.margin[axis];
          inside = inside && at >= 0 && at < d.side(axis);
          image = image * d.side(axis) + at;
        }
        write((b * tokens + token) * d.channels * elements + i, inside ? image : -1);
      }
    }
  }
}

/// Patches along one side that element `at` of the image is in: [first, last].
struct Covering {
  int64_t first, last;
  Covering(const PatchDims& d, int axis, int64_t at)
      : first(std::max<int64_t>(0, (at - d.margin[axis]) / d.patch[axis])),
        last(std::min(d.grid[axis] - 1, (at + d.margin[axis]) / d.patch[axis])) {}
};

/// The sum over all patches that have the image's element (c, at) of image b, in the order of the patches.
template <typename T>
T sum_of_patches(const PatchDims& d, const T* dy, int64_t b, int64_t c, const int64_t (&at)[3]) {
  T sum = 0;
  const Covering x(d, 0, at[0]), y(d, 1, at[1]), z(d, 2, at[2]);
  for (int64_t gx = x.first; gx <= x.last; ++gx)
    for (int64_t gy = y.first; gy <= y.last; ++gy)
      for (int64_t gz = z.first; gz <= z.last; ++gz) {
        const int64_t place[3] = {gx, gy, gz};
        int64_t from = (((b * d.grid[0] + gx) * d.grid[1] + gy) * d.grid[2] + gz) * d.channels + c;
        for (int axis = 0; axis < 3; ++axis) from = from * d.extent(axis) + at[axis] - place[axis] * d.patch[axis] + d.margin[axis];
        sum += dy[from];
      }
  return sum;
}

template <typename T>
void overlapping_backward(const PatchDims& d, const T* dy, T* dx, Accumulate mode) {
  const int64_t width = d.side(2), rows = d.batch * d.channels * d.side(0) * d.side(1);
#pragma omp parallel for schedule(static) if (rows * width > 4096)
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t y = row % d.side(1), x = row / d.side(1) % d.side(0), c = row / d.side(1) / d.side(0) % d.channels;
    const int64_t b = row / d.side(1) / d.side(0) / d.channels;
    store(width, dx + row * width, mode, [&](int64_t z) { return sum_of_patches(d, dy, b, c, {x, y, z}); });
  }
}

}  // namespace

template <typename T>
void extract_patches_forward(const PatchDims& dims, const T* x, T* y) {
  if (dims.overlap()) return for_each_element(dims, [=](int64_t patch, int64_t image) { y[patch] = image < 0 ? T(0) : x[image]; });
  for_each_run(dims, [=, n = dims.patch[2]](int64_t image, int64_t patch) {
    for (int64_t i = 0; i < n; ++i) y[patch + i] = x[image + i];
  });
}

template <typename T>
void extract_patches_backward(const PatchDims& dims, const T* dy, T* dx, Accumulate mode) {
  if (dims.overlap()) return overlapping_backward(dims, dy, dx, mode);
  for_each_run(
      dims, [=, n = dims.patch[2]](int64_t image, int64_t patch) { store(n, dx + image, mode, [=](int64_t i) { return dy[patch + i]; }); });
}

template void extract_patches_forward(const PatchDims&, const float*, float*);
template void extract_patches_forward(const PatchDims&, const double*, double*);
template void extract_patches_backward(const PatchDims&, const float*, float*, Accumulate);
template void extract_patches_backward(const PatchDims&, const double*, double*, Accumulate);

}  // namespace ermoe::cpu
