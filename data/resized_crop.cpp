#include "data/resized_crop.h"

#include <algorithm>
#include <cmath>

namespace ermoe {
namespace {

/// An integer in [0, n) from one random word.
int64_t below(uint32_t word, int64_t n) { return static_cast<int64_t>((uint64_t{word} * static_cast<uint64_t>(n)) >> 32); }

int64_t whole(double x, int64_t most) { return std::clamp<int64_t>(std::llround(x), 1, most); }

CropBox middle_part(const ResizedCrop& settings, int64_t height, int64_t width) {
  const double h = static_cast<double>(height), w = static_cast<double>(width);
  CropBox box{0, 0, height, width};
  if (w / h < settings.least_ratio) box.height = whole(w / settings.least_ratio, height);
  if (w / h > settings.most_ratio) box.width = whole(h * settings.most_ratio, width);
  box.top = (height - box.height) / 2;
  box.left = (width - box.width) / 2;
  return box;
}

}  // namespace

CropBox draw_resized_crop(const ResizedCrop& settings, RngKey key, int64_t height, int64_t width) {
  const double area = static_cast<double>(height) * static_cast<double>(width);
  const double low = std::log(settings.least_ratio), high = std::log(settings.most_ratio);
  for (uint64_t attempt = 0; attempt < 10; ++attempt) {
    const Random4 r = philox(key, attempt);
    const double part = area * (settings.least_area + (settings.most_area - settings.least_area) * uniform(r.x[0]));
    const double ratio = std::exp(low + (high - low) * uniform(r.x[1]));
    const int64_t w = std::llround(std::sqrt(part * ratio)), h = std::llround(std::sqrt(part / ratio));
    if (w < 1 || h < 1 || w > width || h > height) continue;
    return {below(r.x[2], height - h + 1), below(r.x[3], width - w + 1), h, w};
  }
  return middle_part(settings, height, width);
}

}  // namespace ermoe
