// A Gaussian along each axis in turn. See data/volume_grid.h.
#include "core/error.h"
#include "data/volume_grid.h"

#include <algorithm>
#include <cmath>

namespace ermoe {
namespace {

/// Weights at distances 0, 1, … that sum to 1 over both sides.
std::vector<float> gaussian(double sigma) {
  std::vector<double> weights(static_cast<size_t>(std::ceil(4 * sigma)) + 1);
  double sum = 0;
  for (size_t d = 0; d < weights.size(); ++d) {
    weights[d] = std::exp(-0.5 * static_cast<double>(d * d) / (sigma * sigma));
    sum += d == 0 ? weights[d] : 2 * weights[d];
  }
  std::vector<float> result;
  for (const double w : weights) result.push_back(static_cast<float>(w / sum));
  return result;
}

/// One axis of `length` voxels that lie `stride` apart, for `inner` neighbouring lines at once: out and in are (length, inner), of row
/// stride `stride`.
void smooth_lines(const float* in, float* out, int64_t length, int64_t stride, int64_t inner, const std::vector<float>& weights) {
  const auto reach = static_cast<int64_t>(weights.size()) - 1;
  for (int64_t n = 0; n < length; ++n) {
    float* to = out + n * stride;
    std::fill(to, to + inner, 0.0f);
    float sum = 0;
    for (int64_t m = std::max<int64_t>(0, n - reach); m <= std::min(length - 1, n + reach); ++m)
      sum += weights[static_cast<size_t>(std::abs(m - n))];
    for (int64_t m = std::max<int64_t>(0, n - reach); m <= std::min(length - 1, n + reach); ++m) {
      const float w = weights[static_cast<size_t>(std::abs(m - n))] / sum;
      const float* from = in + m * stride;
      for (int64_t i = 0; i < inner; ++i) to[i] += w * from[i];
    }
  }
}

}  // namespace

Volume smooth(const Volume& volume, const Point3& sigma) {
  Volume from = volume, to = volume;
  const auto& size = volume.grid.size;
  // Voxels before the next along each axis: so many lines lie side by side.
  const std::array<int64_t, 3> strides{1, size[0], size[0] * size[1]};
  for (size_t a = 0; a < 3; ++a) {
    check(sigma[a] >= 0 && sigma[a] < 1e4, "[smooth] sigma {} along axis {}", sigma[a], a);
    if (sigma[a] == 0) continue;
    const std::vector<float> weights = gaussian(sigma[a]);
    const int64_t block = strides[a] * size[a];
    for (int64_t first = 0; first < volume.grid.voxels(); first += block)
      smooth_lines(from.values.data() + first, to.values.data() + first, size[a], strides[a], strides[a], weights);
    std::swap(from, to);
  }
  return from;
}

}  // namespace ermoe
