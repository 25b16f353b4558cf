// Masks of experts on the CPU: tokens are independent; each counts its voxels by expert.
#include "ops/kernels/region_mask.h"

#include <algorithm>
#include <vector>

namespace ermoe::cpu {
namespace {

/// counts (E): voxels of patch p of image b that lie in each expert's region.
template <typename Label>
void count_voxels(const RegionMaskDims& dims, const Label* labels, const int32_t* starts, const int32_t* ids, int64_t b, int64_t p,
                  std::vector<int64_t>& counts) {
  std::ranges::fill(counts, 0);
  for (int64_t v = 0; v < dims.voxels_a_patch(); ++v) {
    const int64_t label = place_of_label(labels[place_of_voxel(dims, b, p, v)], dims.labels);
    for (int32_t i = starts[label]; i < starts[label + 1]; ++i) ++counts[static_cast<size_t>(ids[i])];
  }
}

}  // namespace

template <typename Label>
void region_mask(const RegionMaskDims& dims, const Label* labels, const int32_t* starts, const int32_t* ids, uint8_t* allow) {
  const int64_t T = dims.tokens(), E = dims.experts;
#pragma omp parallel if (dims.batch * T * dims.voxels_a_patch() > 16384)
  {
    std::vector<int64_t> counts(static_cast<size_t>(E));
#pragma omp for schedule(static)
    for (int64_t n = 0; n < dims.batch * T; ++n) {
      const int64_t b = n / T, p = n % T - dims.prefix;
      uint8_t* const row = allow + n * E;
      std::fill_n(row, E, uint8_t{0});
      if (p < 0) continue;
      count_voxels(dims, labels, starts, ids, b, p, counts);
      for (int64_t e = 0; e < E; ++e) row[e] = counts[static_cast<size_t>(e)] >= dims.least;
    }
  }
}

template void region_mask(const RegionMaskDims&, const float*, const int32_t*, const int32_t*, uint8_t*);
template void region_mask(const RegionMaskDims&, const int32_t*, const int32_t*, const int32_t*, uint8_t*);

}  // namespace ermoe::cpu
