// Variation of volumes on the CPU: slice by slice of the output.
#include "ops/kernels/augment_volume.h"

namespace ermoe::cpu {
namespace {

/// Slice z of volume b.
void augment_slice(const AugmentVolumeDims& dims, const VolumeDraw& draw, int64_t z, const float* volume, const uint32_t* labels,
                   float* varied, uint32_t* moved) {
  const int64_t nx = dims.size[0], ny = dims.size[1], voxels = dims.voxels();
  for (int64_t y = 0; y < ny; ++y)
    for (int64_t x = 0; x < nx; ++x) {
      const int64_t to = x + nx * (y + ny * z);
      const SourcePlace place = source_of(draw, x, y, z);
      const float field = draw.biased ? bias_at(dims, draw, x, y, z) : 1;
      for (int64_t c = 0; c < dims.channels; ++c)
        varied[c * voxels + to] = vary(trilinear(dims, volume + c * voxels, place), draw, field, c * voxels + to);
      if (labels == nullptr) continue;
      const int64_t from = nearest_voxel(dims, place);
      moved[to] = from < 0 ? 0 : labels[from];
    }
}

}  // namespace

void augment_volume(const AugmentVolumeDims& dims, const float* volumes, const uint32_t* labels, float* varied, uint32_t* moved) {
  const int64_t voxels = dims.voxels(), nz = dims.size[2];
#pragma omp parallel for schedule(static) if (dims.batch * voxels > 4096)
  for (int64_t i = 0; i < dims.batch * nz; ++i) {
    const int64_t b = i / nz;
    augment_slice(dims, draw_volume(dims, b), i % nz, volumes + b * dims.channels * voxels,
                  labels == nullptr ? nullptr : labels + b * voxels, varied + b * dims.channels * voxels,
                  moved == nullptr ? nullptr : moved + b * voxels);
  }
}

}  // namespace ermoe::cpu
