// Cutting images into patches on the CPU: a permutation of memory, moved in runs along the last axis of a patch.
#include "ops/kernels/patch_embed.h"

#include "ops/cpu/store.h"

namespace ermoe::cpu {
namespace {

/// Calls run(image offset, patch offset) for every run of patch[2] elements. Each thread has whole rows of patches, which
/// are apart in both layouts.
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

}  // namespace

template <typename T>
void extract_patches_forward(const PatchDims& dims, const T* x, T* y) {
  for_each_run(dims, [=, n = dims.patch[2]](int64_t image, int64_t patch) {
    for (int64_t i = 0; i < n; ++i) y[patch + i] = x[image + i];
  });
}

template <typename T>
void extract_patches_backward(const PatchDims& dims, const T* dy, T* dx, Accumulate mode) {
  for_each_run(
      dims, [=, n = dims.patch[2]](int64_t image, int64_t patch) { store(n, dx + image, mode, [=](int64_t i) { return dy[patch + i]; }); });
}

template void extract_patches_forward(const PatchDims&, const float*, float*);
template void extract_patches_forward(const PatchDims&, const double*, double*);
template void extract_patches_backward(const PatchDims&, const float*, float*, Accumulate);
template void extract_patches_backward(const PatchDims&, const double*, double*, Accumulate);

}  // namespace ermoe::cpu
