// Files that a JPEG engine decodes ahead: the same pictures, batches and refusals as without one.
#include "data/decode_ahead.h"

#include "data/decode_formats.h"
#include "data/encode_png.h"
#include "data/loader.h"
#include "tests/data/fixtures.h"
#include "tests/data/image_samples.h"
#include "tests/data/jpeg_files.h"

#include <algorithm>
#include <map>

namespace ermoe::testing {
namespace {

constexpr CropBox some_part{3, 5, 9, 11};
const WantedPart wanted{.choose = [](int64_t, int64_t) { return some_part; }, .side = 4};

Image decoded(const std::string& file) { return decode_image(bytes_in(file), "picture"); }

/// An engine whose pictures nobody could have read from a file.
struct Stripes {
  Image stripes{20, 30, 3, {}};
  ToldEngine engine{[this](const std::string&) { return stripes; }};
  Stripes() {
    for (int64_t i = 0; i < 20 * 30 * 3; ++i) stripes.pixels.push_back(static_cast<uint8_t>(7 * i));
  }
};

TEST(FileAhead, GivesWhatTheEngineDecoded) {
  Stripes told;
  const std::string file = make_jpeg(gradient(20, 30));
  EXPECT_EQ(FileAhead(file, told.engine).image("picture"), told.stripes);
  EXPECT_EQ(FileAhead(file, told.engine).part("picture", wanted), crop(told.stripes, some_part));
  EXPECT_EQ(told.engine.asked, 2);
  EXPECT_FALSE(FileAhead());
}

TEST(FileAhead, TurnsWhatTheEngineDecoded) {
  Stripes told;
  for (int orientation = 1; orientation <= 8; ++orientation) {
    const std::string file = make_jpeg(gradient(20, 30), {.exif = exif_block(orientation, false)});
    const Image turned = apply_orientation(told.stripes, orientation);
    EXPECT_EQ(FileAhead(file, told.engine).image("picture"), turned) << orientation;
    EXPECT_EQ(FileAhead(file, told.engine).part("picture", wanted), crop(turned, some_part)) << orientation;
  }
}

TEST(FileAhead, HandsOverThePictureWithoutWhatFollows) {
  const std::string file = make_jpeg(gradient(20, 30));
  std::string seen;
  ToldEngine engine([&](const std::string& given) {
    seen = given;
    return Image{};
  });
  EXPECT_EQ(FileAhead(file + "more", engine).image("picture"), decoded(file));
  EXPECT_EQ(seen, file);
}

TEST(FileAhead, LeavesAllElseToTheProcessor) {
  Stripes told;
  const Image picture = gradient(20, 30);
  const std::string files[] = {make_jpeg(picture, {.kind = JpegKind::progressive}), make_jpeg(picture, {.kind = JpegKind::grey}),
                               make_jpeg(picture, {.kind = JpegKind::adobe_cmyk}), encode_png(picture)};
  for (const std::string& file : files) {
    EXPECT_EQ(FileAhead(file, told.engine).image("picture"), decoded(file));
    EXPECT_EQ(FileAhead(file, told.engine).part("picture", wanted), decode_part(bytes_in(file), "picture", wanted));
  }
  const std::string sound = make_jpeg(picture);
  for (const std::string& file : {sound.substr(0, sound.size() / 2), std::string("no image"), std::string()}) {
    const std::string fault = input_error([&] { decoded(file); });
    EXPECT_EQ(input_error([&] { FileAhead(file, told.engine).image("picture"); }), fault);
  }
  const DecodeLimits small{.max_pixels = 599};
  EXPECT_NE(input_error([&] { FileAhead(sound, told.engine, small).image("picture"); }).find("more than the limit"), std::string::npos);
  EXPECT_EQ(told.engine.asked, 0);
}

TEST(FileAhead, TheProcessorDecodesWhatTheEngineDidNot) {
  ToldEngine engine([](const std::string&) { return Image{}; });
  const std::string file = make_jpeg(gradient(20, 30));
  EXPECT_EQ(FileAhead(file, engine).image("picture"), decoded(file));
  EXPECT_EQ(FileAhead(file, engine).part("picture", wanted), decode_part(bytes_in(file), "picture", wanted));
  EXPECT_EQ(engine.asked, 2);
}

class LoaderWithEngine : public ::testing::Test {
 protected:
  struct Taken {
    std::vector<uint8_t> pixels;
    std::vector<int64_t> indices;
    int64_t bad = 0;
  };

  Taken take(JpegEngine* engine, int threads, std::optional<ResizedCrop> crop = {}) {
    LoaderOptions options;
    options.format = {.size = 12, .channels = 3};
    options.crop = crop;
    options.threads = threads;
    options.max_bad = 0.2;
    options.engine = engine;
    options.warn = [this](const std::string& text) { warnings.push_back(text); };
    Loader loader(files, Sampler(files.size(), {.seed = 5, .batch = 10, .mode = Mode::train}), host, options);
    Taken taken;
    for (int i = 0; i < 5; ++i) {
      const Batch batch = loader.next();
      const auto pixels = batch.images.span<uint8_t>();
      taken.pixels.insert(taken.pixels.end(), pixels.begin(), pixels.end());
      taken.indices.insert(taken.indices.end(), batch.indices.begin(), batch.indices.end());
    }
    taken.bad = loader.bad_files();
    return taken;
  }

  /// Forty pictures, three of them broken.
  static std::vector<std::string> make_files() {
    std::vector<std::string> files;
    for (int64_t i = 0; i < 40; ++i) files.push_back(make_jpeg(gradient(14 + i % 7, 15 + i % 5)));
    files[4].resize(files[4].size() / 2);
    files[17] = "no image";
    files[30].clear();
    return files;
  }

  CachingAllocator host{make_host_source(), Fill::poison};
  FilesInMemory files{make_files()};
  std::vector<std::string> warnings;
};

TEST_F(LoaderWithEngine, DeliversTheSameBatchesAndNamesTheSameFaults) {
  const Taken expected = take(nullptr, 2);
  const std::vector<std::string> expected_warnings = std::exchange(warnings, {});
  EXPECT_EQ(expected.bad, 3);
  for (const int threads : {0, 1, 3}) {
    ToldEngine engine(decoded);
    const Taken taken = take(&engine, threads);
    EXPECT_EQ(taken.pixels, expected.pixels) << threads;
    EXPECT_EQ(taken.indices, expected.indices) << threads;
    EXPECT_EQ(taken.bad, 3);
    EXPECT_EQ(std::exchange(warnings, {}), expected_warnings);
    EXPECT_GT(engine.asked, 30);
  }
}

/// So that a sample which replaces a broken one looks as it does elsewhere, whichever of the two a cache met first.
TEST_F(LoaderWithEngine, ReplacementsAreTheEnginesPicturesToo) {
  const auto inverted = [](const std::string& file) {
    Image image = decoded(file);
    for (uint8_t& value : image.pixels) value = static_cast<uint8_t>(255 - value);
    return image;
  };
  const auto expected = [&] {
    ToldEngine engine(inverted);
    return take(&engine, 0);
  }();
  std::map<int64_t, std::vector<uint8_t>> seen;
  const size_t size = 12 * 12 * 3;
  int64_t twice = 0;
  for (size_t k = 0; k < expected.indices.size(); ++k) {
    const auto from = expected.pixels.begin() + static_cast<std::ptrdiff_t>(k * size);
    const std::vector<uint8_t> pixels(from, from + static_cast<std::ptrdiff_t>(size));
    const auto [place, first] = seen.emplace(expected.indices[k], pixels);
    twice += first ? 0 : 1;
    EXPECT_EQ(place->second, pixels) << expected.indices[k];
  }
  EXPECT_GE(twice, 3);  // as themselves and in place of the broken ones
  for (const int threads : {1, 3}) {
    ToldEngine engine(inverted);
    EXPECT_EQ(take(&engine, threads).pixels, expected.pixels) << threads;
  }
}

TEST_F(LoaderWithEngine, CropsOfTheEnginesPicturesDoNotDependOnThreads) {
  ToldEngine first(decoded), second(decoded);
  const Taken one = take(&first, 0, ResizedCrop{}), three = take(&second, 3, ResizedCrop{});
  EXPECT_EQ(one.pixels, three.pixels);
  EXPECT_EQ(one.indices, three.indices);
}

TEST_F(LoaderWithEngine, AsksForSeveralFilesBeforeItTakesTheFirst) {
  ToldEngine engine(decoded);
  take(&engine, 0, ResizedCrop{});
  EXPECT_GE(engine.asked_at_first_answer, 5);
  EXPECT_LE(engine.asked_at_first_answer, 8);
}

TEST_F(LoaderWithEngine, SaysOnceThatTheEngineGaveUp) {
  ToldEngine engine([](const std::string&) { return Image{}; });
  engine.fault = "it broke";
  const Taken taken = take(&engine, 1);
  EXPECT_EQ(taken.pixels, take(nullptr, 1).pixels);
  EXPECT_EQ(std::ranges::count(warnings, "the processor decodes JPEG files from here on: it broke"), 1);
}

TEST_F(LoaderWithEngine, LeavesDataWithoutFilesAlone) {
  ToldEngine engine(decoded);
  const CountingDataset records(20, 4, 3);
  Loader loader(records, Sampler(20, {.batch = 10}), host, {.format = {.size = 4, .channels = 3}, .engine = &engine, .warn = {}});
  EXPECT_EQ(loader.next().images.shape(), (Shape{10, 4, 4, 3}));
  EXPECT_EQ(engine.asked, 0);
}

}  // namespace
}  // namespace ermoe::testing
