#include "tools/made_photos.h"

#include "core/error.h"
#include "core/file_io.h"
#include "core/rng.h"
#include "data/encode_jpeg.h"
#include "data/resize.h"

#include <algorithm>
#include <array>
#include <exception>
#include <filesystem>
#include <vector>

namespace ermoe {
namespace {

// Of noise by the size of its grains, from single pixels to 32: such that quality 90 gives the bytes that photographs have.
constexpr std::array<int, 6> strengths = {10, 6, 6, 7, 9, 12};

Image noise(int64_t height, int64_t width, RngKey key) {
  Image image{height, width, 3, std::vector<uint8_t>(static_cast<size_t>(height * width * 3))};
  for (size_t i = 0; i < image.pixels.size(); ++i) {
    if (i % 16 != 0) continue;
    const Random4 r = philox(key, i);
    for (size_t k = 0; k < std::min<size_t>(16, image.pixels.size() - i); ++k)
      image.pixels[i + k] = static_cast<uint8_t>(r.x[k / 4] >> (8 * (k % 4)));
  }
  return image;
}

/// Noise of every octave, coarse grains stronger than fine ones, as in photographs.
Image photo(int64_t height, int64_t width, RngKey key) {
  Image sum{height, width, 3, std::vector<uint8_t>(static_cast<size_t>(height * width * 3), 0)};
  std::vector<int> total(sum.pixels.size(), 0);
  int weights = 0;
  for (int octave = 0; octave < static_cast<int>(strengths.size()); ++octave) {
    const int64_t grain = int64_t{1} << octave;
    const int weight = strengths[static_cast<size_t>(octave)];
    const Image layer = resize(noise(std::max<int64_t>(1, height / grain), std::max<int64_t>(1, width / grain), key.fold(octave)), height,
                               width, ResizeFilter::bilinear);
    for (size_t i = 0; i < total.size(); ++i) total[i] += weight * layer.pixels[i];
    weights += weight;
  }
  for (size_t i = 0; i < total.size(); ++i) sum.pixels[i] = static_cast<uint8_t>(total[i] / weights);
  return sum;
}

}  // namespace

void write_made_photos(const MadePhotos& settings, int threads) {
  namespace fs = std::filesystem;
  std::error_code error;
  check_input(!fs::exists(settings.folder, error), "{}: exists already", settings.folder);
  const auto folder_of = [&](int64_t label) { return fmt::format("{}/train/class{:03}", settings.folder, label); };
  for (int64_t label = 0; label < settings.classes; ++label) {
    fs::create_directories(folder_of(label), error);
    check_input(!error, "{}: cannot be made: {}", folder_of(label), error.message());
  }
  std::exception_ptr fault;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (int64_t i = 0; i < settings.count; ++i) {
    try {
      const bool upright = i % 3 == 2;
      const int64_t height = upright ? settings.width : settings.height, width = upright ? settings.height : settings.width;
      const Image image = photo(height, width, RngKey{1}.fold(static_cast<uint64_t>(i)));
      write_file(fmt::format("{}/{:06}.jpg", folder_of(i % settings.classes), i), encode_jpeg(image, settings.quality));
    } catch (...) {
#pragma omp critical
      fault = std::current_exception();
    }
  }
  if (fault) std::rethrow_exception(fault);
}

}  // namespace ermoe
