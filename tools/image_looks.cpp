#include "tools/image_looks.h"

#include "core/error.h"

#include <algorithm>
#include <mutex>

namespace ermoe {
namespace {

constexpr int64_t sampled_images = 100;

void add(const Image& image, ImageSizes& sizes) {
  ++sizes.seen;
  sizes.height += static_cast<double>(image.height);
  sizes.width += static_cast<double>(image.width);
  sizes.smallest = std::min({sizes.smallest, image.height, image.width});
  sizes.largest = std::max({sizes.largest, image.height, image.width});
}

}  // namespace

std::string ImageSizes::line(int64_t all) const {
  if (seen == 0) return {};
  const auto n = static_cast<double>(seen);
  return fmt::format("  images     {:.1f} x {:.1f} pixels on average, sides from {} to {}; {} of {} looked at\n", width / n, height / n,
                     smallest, largest, seen + broken, all);
}

std::string ImageSizes::fault() const {
  if (broken == 0) return {};
  return fmt::format("{} of {} images looked at are broken; for example {}", broken, seen + broken, first_fault);
}

void look_at_images(const ImageDataset& split, Look look, int threads, ImageSizes& sizes) {
  const int64_t stride = look == Look::all ? 1 : std::max<int64_t>(1, split.size() / sampled_images);
  const int64_t count = (split.size() + stride - 1) / stride;
  int64_t first_broken = INT64_MAX;
  std::mutex mutex;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (int64_t n = 0; n < count; ++n) {
    Image image;
    std::string fault;
    try {
      image = split.read(n * stride);
    } catch (const std::exception& e) {
      fault = e.what();
    }
    const std::lock_guard lock(mutex);
    if (fault.empty()) {
      add(image, sizes);
      continue;
    }
    ++sizes.broken;
    if (n > first_broken) continue;
    first_broken = n;
    sizes.first_fault = fault;
  }
}

}  // namespace ermoe
