// Crop, flip, normalisation and erasing on the GPU: a block takes a band of rows of one image, draws its placement once and looks
// values up in shared memory. One reading of bytes, one writing of floats. Contract: ops/kernels/augment.h.
#include "ops/kernels/augment.h"

#include "cuda/device/index.cuh"
#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"

#include <algorithm>

namespace ermoe::cuda {
namespace {

constexpr int threads = 256;
constexpr int64_t pixels_a_block = 16 * threads;

__global__ void __launch_bounds__(threads)
    augment_kernel(AugmentDims dims, __grid_constant__ const PixelTable table, int64_t bands, const uint8_t* pixels, float* images) {
  __shared__ float value[3][256];
  __shared__ Placement place;
  const int64_t b = blockIdx.x / bands, band = blockIdx.x % bands, side = dims.side, area = side * side, channels = dims.channels;
  for (int i = static_cast<int>(threadIdx.x); i < 3 * 256; i += threads) value[i / 256][i % 256] = table.value[i / 256][i % 256];
  if (threadIdx.x == 0) place = draw_placement(dims, b);
  __syncthreads();
  const uint8_t* const from = pixels + b * area * channels;
  float* const to = images + b * area * channels;
  const Rectangle box = place.erased;
  const int64_t end = min(area, (band + 1) * pixels_a_block);
  for (int64_t i = band * pixels_a_block + threadIdx.x; i < end; i += threads) {
    const auto [y, x] = divide(i, side);
    const int64_t row = y + place.down, column = (place.mirrored ? side - 1 - x : x) + place.right;
    const bool inside = row >= 0 && row < side && column >= 0 && column < side;
    const bool erased = y >= box.top && y < box.top + box.height && x >= box.left && x < box.left + box.width;
    const uint8_t* const pixel = from + (row * side + column) * channels;
    for (int64_t c = 0; c < channels; ++c) to[c * area + i] = erased ? 0.0f : value[c][inside ? pixel[c] : 0];
  }
}

}  // namespace

void augment(const Stream& stream, const AugmentDims& dims, const PixelTable& table, const uint8_t* pixels, float* images) {
  if (dims.batch == 0 || dims.side == 0) return;
  const int64_t bands = (dims.side * dims.side + pixels_a_block - 1) / pixels_a_block;
  augment_kernel<<<static_cast<unsigned>(dims.batch * bands), threads, 0, native(stream)>>>(dims, table, bands, pixels, images);
  cuda_check(cudaGetLastError(), "augment");
}

}  // namespace ermoe::cuda
