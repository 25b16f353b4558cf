// Variation of volumes on the GPU: a block takes a piece of one volume's voxels and draws for the volume once. Neighbouring threads read
// neighbouring voxels but for small turns, so what they read comes from the cache. Contract: ops/kernels/augment_volume.h.
#include "ops/kernels/augment_volume.h"

#include "cuda/device/index.cuh"
#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"

namespace ermoe::cuda {
namespace {

constexpr int threads = 256;
constexpr int64_t voxels_a_block = 16 * threads;

__global__ void __launch_bounds__(threads) augment_volume_kernel(AugmentVolumeDims dims, int64_t pieces, const float* volumes,
                                                                 const uint32_t* labels, float* varied, uint32_t* moved) {
  __shared__ VolumeDraw draw;
  const int64_t b = blockIdx.x / pieces, piece = blockIdx.x % pieces, voxels = dims.voxels(), channels = dims.channels;
  if (threadIdx.x == 0) draw = draw_volume(dims, b);
  __syncthreads();
  volumes += b * channels * voxels;
  varied += b * channels * voxels;
  const int64_t end = min(voxels, (piece + 1) * voxels_a_block);
  for (int64_t i = piece * voxels_a_block + threadIdx.x; i < end; i += threads) {
    const auto [row, x] = divide(i, dims.size[0]);
    const auto [z, y] = divide(row, dims.size[1]);
    const SourcePlace place = source_of(draw, x, y, z);
    const float field = draw.biased ? bias_at(dims, draw, x, y, z) : 1.0f;
    for (int64_t c = 0; c < channels; ++c)
      varied[c * voxels + i] = vary(trilinear(dims, volumes + c * voxels, place), draw, field, c * voxels + i);
    if (labels == nullptr) continue;
    const int64_t from = nearest_voxel(dims, place);
    moved[b * voxels + i] = from < 0 ? 0u : labels[b * voxels + from];
  }
}

}  // namespace

void augment_volume(const Stream& stream, const AugmentVolumeDims& dims, const float* volumes, const uint32_t* labels, float* varied,
                    uint32_t* moved) {
  if (dims.batch * dims.voxels() == 0) return;
  const int64_t pieces = (dims.voxels() + voxels_a_block - 1) / voxels_a_block;
  augment_volume_kernel<<<static_cast<unsigned>(dims.batch * pieces), threads, 0, native(stream)>>>(dims, pieces, volumes, labels, varied,
                                                                                                    moved);
  cuda_check(cudaGetLastError(), "augment_volume");
}

}  // namespace ermoe::cuda
