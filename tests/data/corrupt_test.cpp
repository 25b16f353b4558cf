// Broken, hostile and merely unusual image files from the test suites of other decoders: each is decoded or refused as its manifest says,
// and none crashes, hangs or takes more memory than the limits allow.
#include "core/error.h"
#include "data/decode.h"
#include "data/gzip.h"
#include "data/tar.h"
#include "tests/data/test_data.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <sstream>

namespace ermoe::testing {
namespace {

enum class Expect { accept, reject, any };

struct Case {
  std::string path;
  Expect expect;
};

/// Formats that the manifest may accept and that are not read here, with the reason.
const std::map<std::string, std::string> not_read = {
    {".tif", "TIFF is a container of many codings that training sets do not use"},
    {".tiff", "as .tif"},
};

std::vector<Case> image_cases(const TarReader& tar) {
  std::istringstream manifest(tar.read(*tar.find("manifest.tsv")));
  std::vector<Case> cases;
  std::string line;
  std::getline(manifest, line);
  while (std::getline(manifest, line)) {
    std::istringstream row(line);
    std::string path, bytes, source, licence, expect;
    for (std::string* cell : {&path, &bytes, &source, &licence, &expect}) std::getline(row, *cell, '\t');
    const bool image = path.starts_with("png/") || path.starts_with("jpeg/") || path.starts_with("pillow/");
    if (!image || expect == "-") continue;
    cases.push_back({path, expect == "accept" ? Expect::accept : expect == "reject" ? Expect::reject : Expect::any});
  }
  return cases;
}

/// The message with which a file is refused, empty where it is decoded; what else is thrown passes on and fails the test.
std::string refusal(const std::string& bytes, const std::string& name) {
  try {
    const Image image = decode_image(bytes_of(bytes), name);
    EXPECT_EQ(static_cast<int64_t>(image.pixels.size()), image.height * image.width * 3) << name;
    EXPECT_GT(image.pixels.size(), 0u) << name;
    EXPECT_LE(image.height * image.width, DecodeLimits{}.max_pixels) << name;
    return {};
  } catch (const InputError& e) {
    EXPECT_EQ(std::string(e.what()).find(name + ": "), 0u) << e.what();
    return e.what();
  }
}

/// The same for a part of it: the middle ninth, as small as a decoder can make it.
std::string refusal_of_part(const std::string& bytes, const std::string& name) {
  const auto middle = [](int64_t height, int64_t width) {
    return CropBox{height / 3, width / 3, std::max<int64_t>(1, height / 3), std::max<int64_t>(1, width / 3)};
  };
  try {
    const Image image = decode_part(bytes_of(bytes), name, {.choose = middle, .side = 1});
    EXPECT_EQ(static_cast<int64_t>(image.pixels.size()), image.height * image.width * 3) << name;
    EXPECT_GT(image.pixels.size(), 0u) << name;
    return {};
  } catch (const InputError& e) {
    EXPECT_EQ(std::string(e.what()).find(name + ": "), 0u) << e.what();
    return e.what();
  }
}

/// The most memory that this process has held so far, in KiB.
long peak_memory() {
  rusage usage{};
  EXPECT_EQ(getrusage(RUSAGE_SELF, &usage), 0);
  return usage.ru_maxrss;
}

TEST(CorruptImages, AreDecodedOrRefusedAsTheManifestSays) {
  ERMOE_REQUIRE_TEST_DATA(path, "corrupt_inputs.tar");
  const TarReader tar(path);
  const std::vector<Case> cases = image_cases(tar);
  ASSERT_GT(cases.size(), 400u);
  const long peak_before = peak_memory();
  std::map<Expect, int> decoded, refused;
  for (const Case& c : cases) {
    SCOPED_TRACE(c.path);
    const TarEntry* entry = tar.find(c.path);
    ASSERT_NE(entry, nullptr);
    const auto start = std::chrono::steady_clock::now();
    const std::string message = refusal(tar.read(*entry), c.path);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    EXPECT_EQ(refusal_of_part(tar.read(*entry), c.path), message);
    ++(message.empty() ? decoded : refused)[c.expect];
    EXPECT_LT(seconds.count(), 2.0);
    if (not_read.contains(std::filesystem::path(c.path).extension())) {
      EXPECT_FALSE(message.empty());
    } else if (c.expect != Expect::any) {
      EXPECT_EQ(message.empty(), c.expect == Expect::accept) << (message.empty() ? "was decoded" : message);
    }
  }
  RecordProperty("decoded", decoded[Expect::accept] + decoded[Expect::any]);
  RecordProperty("refused", refused[Expect::reject] + refused[Expect::any]);
  // "Any" files exercise the decoders only if not all of them fail at the door.
  EXPECT_GT(decoded[Expect::any], 20);
  EXPECT_GT(refused[Expect::any], 100);

  EXPECT_LT(peak_memory() - peak_before, 1L << 20) << "KiB more than before";
}

}  // namespace
}  // namespace ermoe::testing
