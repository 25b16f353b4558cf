// Random parts of photographs: within the image and the stated bounds, the same for any number of threads, and what the whole
// picture shows there.
#include "data/resized_crop.h"

#include "data/decode.h"
#include "data/loader.h"
#include "data/resize.h"
#include "tests/data/fixtures.h"
#include "tests/data/image_samples.h"

#include <gtest/gtest.h>

#include <cmath>

namespace ermoe::testing {
namespace {

TEST(ResizedCrop, DrawsAreInsideAndWithinTheirBounds) {
  const ResizedCrop settings;
  double middle = 0;
  constexpr int draws = 4000;
  for (int i = 0; i < draws; ++i) {
    const int64_t h = 375, w = 500;
    const CropBox box = draw_resized_crop(settings, RngKey{1}.fold(static_cast<uint64_t>(i)), h, w);
    ASSERT_TRUE(box.top >= 0 && box.left >= 0 && box.height >= 1 && box.width >= 1);
    ASSERT_TRUE(box.top + box.height <= h && box.left + box.width <= w);
    const double share = static_cast<double>(box.height * box.width) / static_cast<double>(h * w);
    const double ratio = static_cast<double>(box.width) / static_cast<double>(box.height);
    EXPECT_GT(share, 0.075);
    EXPECT_GT(ratio, 0.73);
    EXPECT_LT(ratio, 1.37);
    middle += static_cast<double>(box.left) + static_cast<double>(box.width) / 2;
  }
  EXPECT_NEAR(middle / draws, 250, 5);
}

/// Squares of a square always fit, so that no draw is repeated.
TEST(ResizedCrop, AreasAreDrawnEvenly) {
  const ResizedCrop squares{.least_ratio = 1, .most_ratio = 1};
  constexpr int draws = 4000;
  double area = 0;
  for (int i = 0; i < draws; ++i) {
    const CropBox box = draw_resized_crop(squares, RngKey{2}.fold(static_cast<uint64_t>(i)), 1000, 1000);
    EXPECT_EQ(box.height, box.width);
    area += static_cast<double>(box.height * box.width) / 1e6;
  }
  EXPECT_NEAR(area / draws, 0.54, 5 * 0.92 / std::sqrt(12.0 * draws));
}

TEST(ResizedCrop, WhereNothingFitsTheMiddleIsTaken) {
  const ResizedCrop all{.least_area = 1, .most_area = 1};
  const CropBox wide = draw_resized_crop(all, RngKey{1}, 10, 100), tall = draw_resized_crop(all, RngKey{1}, 100, 10);
  EXPECT_EQ(wide.height, 10);
  EXPECT_EQ(wide.width, 13);
  EXPECT_EQ(wide.left, 43);
  EXPECT_EQ(tall.width, 10);
  EXPECT_EQ(tall.height, 13);
  const CropBox dot = draw_resized_crop(all, RngKey{1}, 1, 1);
  EXPECT_TRUE(dot.height == 1 && dot.width == 1 && dot.top == 0 && dot.left == 0);
}

Image part_of(const std::string& bytes, const CropBox& box, int64_t side) {
  return decode_part(std::as_bytes(std::span(bytes)), "picture", {.choose = [&](int64_t, int64_t) { return box; }, .side = side});
}

double difference(const Image& a, const Image& b) {
  EXPECT_EQ(a.height, b.height);
  EXPECT_EQ(a.width, b.width);
  if (a.pixels.size() != b.pixels.size()) return INFINITY;
  double sum = 0;
  for (size_t i = 0; i < a.pixels.size(); ++i) sum += std::abs(a.pixels[i] - b.pixels[i]);
  return sum / static_cast<double>(a.pixels.size());
}

/// Blocks of random colours, `block` pixels a side: a part one block off looks different.
Image mosaic(int64_t height, int64_t width, int64_t block) {
  Image image = gradient(height, width);
  for (int64_t y = 0; y < height; ++y)
    for (int64_t x = 0; x < width; ++x)
      for (int64_t c = 0; c < 3; ++c) {
        const uint64_t key = static_cast<uint64_t>((y / block * 1000 + x / block) * 3 + c);
        image.pixels[static_cast<size_t>((y * width + x) * 3 + c)] = static_cast<uint8_t>(uniform_int(RngKey{5}, key, 256));
      }
  return image;
}

/// `part` shows what `box` of `whole` shows, and not what lies `step` pixels beside it.
void expect_shows(const Image& part, const Image& whole, const CropBox& box, int64_t step, const std::string& what) {
  const auto seen_at = [&](int64_t down, int64_t right) {
    CropBox moved = box;
    moved.top += down;
    moved.left += right;
    if (moved.top + moved.height > whole.height || moved.left + moved.width > whole.width) return double{INFINITY};
    const Image there = crop(whole, moved);
    return difference(part, there.height == part.height && there.width == part.width ? there : resize(there, part.height, part.width));
  };
  const double right = seen_at(0, 0);
  EXPECT_LT(right, 0.4 * seen_at(step, 0)) << what;
  EXPECT_LT(right, 0.4 * seen_at(0, step)) << what;
}

TEST(DecodePart, IsWhatTheWholePictureShowsThere) {
  const Image picture = mosaic(203, 317, 4);
  for (const JpegKind kind : {JpegKind::colour, JpegKind::progressive, JpegKind::grey, JpegKind::cmyk, JpegKind::adobe_cmyk}) {
    const std::string bytes = make_jpeg(picture, {.kind = kind});
    const Image whole = decode_image(std::as_bytes(std::span(bytes)), "picture");
    for (const CropBox& box :
         {CropBox{0, 0, 203, 317}, CropBox{17, 33, 90, 110}, CropBox{0, 0, 40, 50}, CropBox{163, 267, 40, 50}, CropBox{101, 0, 102, 317}})
      expect_shows(part_of(bytes, box, 1000), whole, box, 1, fmt::format("kind {}, {} down", static_cast<int>(kind), box.top));
  }
}

TEST(DecodePart, IsSmallerWhereItHasPixelsToSpare) {
  const Image picture = mosaic(800, 640, 16);
  const std::string bytes = make_jpeg(picture);
  const Image whole = decode_image(std::as_bytes(std::span(bytes)), "picture");
  const CropBox box{160, 64, 512, 480};
  for (const auto& [side, shrink] : {std::pair<int64_t, int64_t>{300, 1}, {240, 2}, {120, 4}, {60, 8}, {7, 8}}) {
    const Image part = part_of(bytes, box, side);
    EXPECT_EQ(part.height, 512 / shrink);
    EXPECT_EQ(part.width, 480 / shrink);
    expect_shows(part, whole, box, std::max<int64_t>(shrink, 4), fmt::format("1/{}", shrink));
  }
}

TEST(DecodePart, TurnsPicturesAndReadsOtherFormats) {
  const Image picture = gradient(60, 90);
  const std::string turned = make_jpeg(picture, {.exif = exif_block(6, true)});
  const CropBox box{3, 5, 40, 50};
  EXPECT_LT(difference(part_of(turned, box, 9), crop(decode_image(std::as_bytes(std::span(turned)), "picture"), box)), 1e-9);
  const std::string plain = ppm(30, 40, 77);
  EXPECT_EQ(part_of(plain, {1, 2, 3, 4}, 2).pixels, std::vector<uint8_t>(36, 77));
}

/// What lies behind the part is read as well.
TEST(DecodePart, RefusesWhatIsDamagedOutsideOfIt) {
  const std::string bytes = make_jpeg(gradient(400, 400));
  const CropBox corner{0, 0, 32, 32};
  EXPECT_EQ(part_of(bytes, corner, 32).height, 32);
  for (const size_t cut : {size_t{40}, bytes.size() / 2}) {
    const std::string broken = bytes.substr(0, bytes.size() - cut);
    EXPECT_THROW(part_of(broken, corner, 32), InputError) << cut;
  }
}

class Photographs final : public ImageDataset {
 public:
  Photographs() {
    for (int64_t i = 0; i < 12; ++i) files_.push_back(make_jpeg(gradient(60 + 7 * i, 100 - 3 * i)));
  }
  int64_t size() const override { return std::ssize(files_); }
  const std::vector<std::string>& class_names() const override { return names_; }
  int32_t label(int64_t i) const override { return static_cast<int32_t>(i % 2); }
  std::string name(int64_t i) const override { return fmt::format("photograph {}", i); }
  Image read(int64_t i) const override { return decode_image(std::as_bytes(std::span(files_[i])), name(i)); }
  Image read_part(int64_t i, const WantedPart& part) const override {
    return decode_part(std::as_bytes(std::span(files_[i])), name(i), part);
  }

 private:
  std::vector<std::string> files_, names_ = {"a", "b"};
};

TEST(LoaderOfCrops, GivesTheSameOnesWithAnyNumberOfThreadsAndOthersEachEpoch) {
  const Photographs data;
  CachingAllocator host(make_host_source(), Fill::poison);
  std::vector<std::vector<uint8_t>> runs;
  for (const int threads : {0, 1, 3}) {
    Loader loader(data, Sampler(12, {.seed = 4, .batch = 6}), host,
                  {.format = {.size = 16, .channels = 3}, .crop = ResizedCrop{}, .threads = threads, .warn = {}});
    std::vector<uint8_t> pixels;
    for (int step = 0; step < 5; ++step) {
      const Batch batch = loader.next();
      const auto span = batch.images.span<uint8_t>();
      pixels.insert(pixels.end(), span.begin(), span.end());
    }
    runs.push_back(std::move(pixels));
  }
  EXPECT_EQ(runs[0], runs[1]);
  EXPECT_EQ(runs[0], runs[2]);
  SampleReader reader(data, {.size = 16, .channels = 3}, 0);
  std::vector<uint8_t> first(768), again(768), other(768);
  reader.read_crop(3, {}, RngKey{1}, first.data());
  reader.read_crop(3, {}, RngKey{1}, again.data());
  reader.read_crop(3, {}, RngKey{2}, other.data());
  EXPECT_EQ(first, again);
  EXPECT_NE(first, other);
}

TEST(Prepare, CentreCropKeepsItsShareOfTheShorterSide) {
  const Image picture = gradient(100, 120);
  const SampleFormat format{.size = 32, .channels = 3, .crop_pct = 0.8};
  std::vector<uint8_t> out(static_cast<size_t>(format.elements()));
  prepare(picture, format, out.data());
  EXPECT_EQ(out, center_crop(resize(picture, 40, 48), 32, 32).pixels);
}

}  // namespace
}  // namespace ermoe::testing
