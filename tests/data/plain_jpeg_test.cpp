// Which files may go to a JPEG engine: none that is cut, odd or says what is not so.
#include "data/plain_jpeg.h"

#include "core/error.h"
#include "data/tar.h"
#include "tests/data/image_samples.h"
#include "tests/data/jpeg_files.h"
#include "tests/data/test_data.h"

namespace ermoe::testing {
namespace {

std::optional<PlainJpeg> plain(const std::string& file) { return find_plain_jpeg(bytes_in(file)); }

TEST(PlainJpeg, IsFoundWithItsSizeAndWhereItEnds) {
  for (const auto& [height, width] : {std::pair(1, 1), {7, 5}, {16, 16}, {33, 47}, {75, 100}})
    for (const auto& [across, down] : {std::pair(1, 1), {2, 1}, {2, 2}})
      for (const unsigned restart : {0u, 1u, 3u}) {
        const std::string file = make_jpeg(gradient(height, width), {.across = across, .down = down, .restart = restart});
        const auto found = plain(file + std::string("\xff\xd8 a second picture", 18));
        ASSERT_TRUE(found) << height << " x " << width << " at " << across << " x " << down << ", restart " << restart;
        EXPECT_EQ(found->height, height);
        EXPECT_EQ(found->width, width);
        EXPECT_EQ(found->orientation, 1);
        EXPECT_EQ(found->bytes, file.size());
      }
}

TEST(PlainJpeg, TellsHowItIsToBeTurned) {
  for (const int orientation : {1, 3, 6, 8})
    for (const bool big_endian : {false, true}) {
      const auto found = plain(make_jpeg(gradient(9, 17), {.exif = exif_block(orientation, big_endian)}));
      ASSERT_TRUE(found);
      EXPECT_EQ(found->orientation, orientation);
    }
}

TEST(PlainJpeg, OtherKindsAreNot) {
  for (const JpegKind kind : {JpegKind::progressive, JpegKind::grey, JpegKind::rgb, JpegKind::cmyk, JpegKind::adobe_cmyk})
    EXPECT_FALSE(plain(make_jpeg(gradient(20, 30), {.kind = kind}))) << static_cast<int>(kind);
  EXPECT_FALSE(plain(make_jpeg(gradient(20, 30), {.across = 1, .down = 2})));
  EXPECT_FALSE(plain(make_jpeg(gradient(20, 70), {.across = 4, .down = 1})));
  EXPECT_FALSE(plain(""));
  EXPECT_FALSE(plain("\x89PNG\r\n\x1a\n"));
}

TEST(PlainJpeg, NoPartOfAFileIs) {
  const std::string file = make_jpeg(gradient(24, 40), {.across = 2, .down = 2, .restart = 2});
  for (size_t n = 0; n < file.size(); ++n) ASSERT_FALSE(plain(file.substr(0, n))) << n;
  const size_t last_restart = file.rfind("\xff\xd1");  // of 2 x 3 units, each second one
  ASSERT_NE(last_restart, std::string::npos);
  for (size_t n = 2; n < last_restart; ++n) ASSERT_FALSE(plain(file.substr(0, n) + "\xff\xd9")) << "cut at " << n << " and closed";
}

TEST(PlainJpeg, ASizeThatItsDataCannotFillIsNone) {
  std::string file = make_jpeg(gradient(24, 40));
  const size_t frame = file.find("\xff\xc0");
  ASSERT_NE(frame, std::string::npos);
  for (const size_t at : {5u, 6u, 7u, 8u}) file[frame + at] = '\xfa';
  EXPECT_FALSE(plain(file));
}

/// What is taken for plain has the size that the processor's decoder finds, so memory of that size holds it.
TEST(PlainJpeg, ChangedBytesNeverChangeItsSizeAlone) {
  const std::string file = make_jpeg(gradient(16, 24), {.exif = exif_block(6, true), .across = 2, .down = 2, .restart = 1});
  int64_t taken = 0, read = 0;
  for (size_t at = 0; at < file.size(); ++at)
    for (const int change : {1, 0x10, 0x80, 0xff}) {
      std::string changed = file;
      changed[at] = static_cast<char>(changed[at] ^ change);
      const auto found = plain(changed);
      if (!found) continue;
      ++taken;
      try {
        const Image image = decode_image(bytes_in(changed), "changed");
        ++read;
        const bool turned = found->orientation > 4;
        EXPECT_EQ(image.height, turned ? found->width : found->height) << at;
        EXPECT_EQ(image.width, turned ? found->height : found->width) << at;
      } catch (const InputError&) {  // damage inside of the compressed data is not seen by a look at the markers
      }
    }
  EXPECT_GT(read, 0);
  EXPECT_LT(taken, 4 * std::ssize(file));
}

TEST(PlainJpeg, MostPhotographsAre) {
  ERMOE_REQUIRE_TEST_DATA(path, "caltech_10.tar");
  const TarReader tar(path);
  int64_t files = 0, taken = 0;
  for (const TarEntry& entry : tar.entries()) {
    if (!entry.name.ends_with(".jpg")) continue;
    ++files;
    const std::string file = tar.read(entry);
    const auto found = plain(file);
    if (!found) continue;
    ++taken;
    const Image image = decode_image(bytes_in(file), entry.name);
    EXPECT_EQ(image.height * image.width, found->height * found->width) << entry.name;
  }
  EXPECT_GE(10 * taken, 9 * files) << taken << " of " << files;
}

}  // namespace
}  // namespace ermoe::testing
