// RandAugment on the GPU: a block an image, one operation after the other from one buffer to the next. All arithmetic on pixels
// is in integers and what depends on the strength is computed on the host, so the bits are those of the CPU.
// Contract: ops/kernels/randaugment.h.
#include "ops/kernels/randaugment.h"

#include "cuda/device/index.cuh"
#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"

namespace ermoe::cuda {
namespace {

constexpr int threads = 1024;

/// What an operation of a positive (0) or a negative strength (1) needs.
struct Prepared {
  AffineMap maps[2][image_operations];
  int factors[2];
  int cleared, threshold;
};

struct Image {
  int64_t side, channels;
  const uint8_t* from;
  uint8_t* to;

  __device__ int64_t area() const { return side * side; }
  __device__ int64_t size() const { return area() * channels; }
};

/// Shared memory of a block.
struct Board {
  unsigned counts[3][256];
  uint8_t table[3][256];
  unsigned long long sum;
};

__device__ void look_up(const Image& image, const Board& board) {
  const int channels = static_cast<int>(image.channels);
  for (int64_t i = threadIdx.x; i < image.size(); i += threads) {
    const int c = channels == 1 ? 0 : static_cast<int>(divide(i, channels).column);
    image.to[i] = board.table[c][image.from[i]];
  }
}

/// Fills the tables by fn(channel, value), which may read the counts, and uses them.
template <typename Fn>
__device__ void map_values(const Image& image, Board& board, Fn fn) {
  for (int i = static_cast<int>(threadIdx.x); i < 3 * 256; i += threads)
    board.table[i / 256][i % 256] = static_cast<uint8_t>(fn(i / 256, i % 256));
  __syncthreads();
  look_up(image, board);
}

__device__ void count_values(const Image& image, Board& board) {
  for (int i = static_cast<int>(threadIdx.x); i < 3 * 256; i += threads) board.counts[i / 256][i % 256] = 0;
  __syncthreads();
  for (int64_t i = threadIdx.x; i < image.size(); i += threads)
    atomicAdd(&board.counts[image.channels == 1 ? 0 : divide(i, image.channels).column][image.from[i]], 1u);
  __syncthreads();
}

__device__ void autocontrast(const Image& image, Board& board) {
  count_values(image, board);
  map_values(image, board, [&](int c, int v) {
    int low = 0, high = 255;
    while (low < 255 && board.counts[c][low] == 0) ++low;
    while (high > 0 && board.counts[c][high] == 0) --high;
    if (low >= high) return v;
    return v < low || v > high ? 0 : ((v - low) * 255 + (high - low) / 2) / (high - low);
  });
}

__device__ void equalize(const Image& image, Board& board) {
  count_values(image, board);
  map_values(image, board, [&](int c, int v) {
    int brightest = 255;
    while (brightest > 0 && board.counts[c][brightest] == 0) --brightest;
    const int64_t step = (image.area() - board.counts[c][brightest]) / 255;
    if (step == 0) return v;
    int64_t below_value = step / 2;
    for (int u = 0; u < v; ++u) below_value += board.counts[c][u];
    return static_cast<int>(min(below_value / step, int64_t{255}));
  });
}

/// Blends with the mean luma.
__device__ void contrast(const Image& image, Board& board, int factor) {
  if (threadIdx.x == 0) board.sum = 0;
  __syncthreads();
  unsigned long long mine = 0;
  for (int64_t i = threadIdx.x; i < image.area(); i += threads)
    mine += static_cast<unsigned>(luma(image.from + i * image.channels, image.channels));
  atomicAdd(&board.sum, mine);
  __syncthreads();
  const auto mean = static_cast<int>((static_cast<int64_t>(board.sum) + image.area() / 2) / image.area());
  map_values(image, board, [=](int, int v) { return blend(mean, v, factor); });
}

__device__ void color(const Image& image, int factor) {
  for (int64_t i = threadIdx.x; i < image.area(); i += threads) {
    const uint8_t* const pixel = image.from + i * image.channels;
    const int grey = luma(pixel, image.channels);
    for (int64_t c = 0; c < image.channels; ++c)
      image.to[i * image.channels + c] = image.channels == 1 ? pixel[c] : blend(grey, pixel[c], factor);
  }
}

__device__ void sharpness(const Image& image, int factor) {
  const int64_t row = image.side * image.channels, step = image.channels;
  for (int64_t i = threadIdx.x; i < image.size(); i += threads) {
    const auto [y, column] = divide(i, row);
    const bool inner = y > 0 && y < image.side - 1 && column >= step && column < row - step;
    const uint8_t* const p = image.from + i;
    image.to[i] = inner ? blend(smoothed(p, row, step), p[0], factor) : p[0];
  }
}

__device__ void warp(const Image& image, const AffineMap& map) {
  for (int64_t i = threadIdx.x; i < image.area(); i += threads) {
    const auto [row, column] = divide(i, image.side);
    const int64_t x = map.first_x(row) + column * map.xx, y = map.first_y(row) + column * map.yx;
    sample(image.from, image.side, image.channels, x, y, image.to + i * image.channels);
  }
}

__device__ void apply(ImageOperation operation, int sign, const Prepared& prepared, const Image& image, Board& board) {
  const int factor = prepared.factors[sign];
  switch (operation) {
    case ImageOperation::identity: return;
    case ImageOperation::autocontrast: return autocontrast(image, board);
    case ImageOperation::equalize: return equalize(image, board);
    case ImageOperation::posterize: return map_values(image, board, [&](int, int v) { return v >> prepared.cleared << prepared.cleared; });
    case ImageOperation::solarize: return map_values(image, board, [&](int, int v) { return v >= prepared.threshold ? 255 - v : v; });
    case ImageOperation::color: return color(image, factor);
    case ImageOperation::contrast: return contrast(image, board, factor);
    case ImageOperation::brightness: return map_values(image, board, [=](int, int v) { return blend(0, v, factor); });
    case ImageOperation::sharpness: return sharpness(image, factor);
    default: return warp(image, prepared.maps[sign][static_cast<int>(operation)]);
  }
}

/// Every operation but the identity goes from one of the three buffers to `varied` or `scratch`; the last one is copied to
/// `varied` where it went elsewhere.
__global__ void __launch_bounds__(threads) randaugment_kernel(RandAugmentDims dims, __grid_constant__ const Prepared prepared,
                                                              const uint8_t* pixels, uint8_t* varied, uint8_t* scratch) {
  __shared__ Board board;
  const int64_t b = blockIdx.x, size = dims.side * dims.side * dims.channels;
  pixels += b * size;
  varied += b * size;
  scratch += b * size;
  const uint8_t* current = pixels;
  for (int64_t i = 0; i < dims.operations; ++i) {
    const DrawnOperation drawn = draw_operation(dims, b, i);
    if (drawn.operation == ImageOperation::identity) continue;
    uint8_t* const next = current == varied ? scratch : varied;
    apply(drawn.operation, drawn.strength < 0 ? 1 : 0, prepared, {dims.side, dims.channels, current, next}, board);
    current = next;
    __syncthreads();
  }
  if (current == varied) return;
  for (int64_t i = threadIdx.x; i < size; i += threads) varied[i] = current[i];
}

}  // namespace

void randaugment(const Stream& stream, const RandAugmentDims& dims, const uint8_t* pixels, uint8_t* varied, uint8_t* scratch) {
  if (dims.batch == 0 || dims.side == 0) return;
  Prepared prepared{};
  prepared.cleared = cleared_bits(dims.strength);
  prepared.threshold = solarize_threshold(dims.strength);
  for (int sign : {0, 1}) {
    const double strength = sign == 0 ? dims.strength : -dims.strength;
    prepared.factors[sign] = blend_factor(strength);
    for (int i = 0; i < image_operations; ++i) prepared.maps[sign][i] = affine_map(static_cast<ImageOperation>(i), strength, dims.side);
  }
  randaugment_kernel<<<static_cast<unsigned>(dims.batch), threads, 0, native(stream)>>>(dims, prepared, pixels, varied, scratch);
  cuda_check(cudaGetLastError(), "randaugment");
}

}  // namespace ermoe::cuda
