// Gzip reading: what zlib writes comes back in any chunking, and no damaged, cut or oversized stream passes.
#include "data/gzip.h"

#include "core/error.h"
#include "tests/data/gzip_writer.h"
#include "tests/scratch.h"

#include <gtest/gtest.h>

namespace ermoe::testing {
namespace {

std::string some_text(size_t bytes) {
  std::string text;
  for (size_t i = 0; text.size() < bytes; ++i) text += std::to_string(i * i % 7919) + ",";
  text.resize(bytes);
  return text;
}

constexpr size_t no_limit = size_t{1} << 30;

TEST(Gzip, InflatesWhatWasDeflated) {
  for (const size_t bytes : {0u, 1u, 1000u, 3'000'000u}) {
    const std::string text = some_text(bytes);
    EXPECT_EQ(gunzip(gzip(text), "x.gz", no_limit), text) << bytes;
  }
}

TEST(Gzip, ReadsFilesPlainOrCompressedInPieces) {
  const ScratchFolder folder;
  const std::string text = some_text(700'000);
  write_file(folder.file("a.gz"), gzip(text));
  write_file(folder.file("a"), text);
  for (const char* name : {"a.gz", "a"}) {
    EXPECT_EQ(read_plain_or_gzip(folder.file(name), no_limit), text) << name;
    GzipReader reader(folder.file(name));
    EXPECT_EQ(reader.compressed(), std::string(name) == "a.gz");
    std::string got;
    char piece[4099];
    while (const size_t n = reader.read(piece, sizeof piece)) got.append(piece, n);
    EXPECT_EQ(got, text) << name;
    EXPECT_EQ(reader.position(), text.size());
    EXPECT_THROW(reader.read_exactly(piece, 1), InputError);
  }
}

TEST(Gzip, JoinsMembersAndIgnoresZeroPadding) {
  const std::string two = gzip("first ") + gzip("second");
  EXPECT_EQ(gunzip(two, "x.gz", no_limit), "first second");
  EXPECT_EQ(gunzip(two + std::string(1000, '\0'), "x.gz", no_limit), "first second");
  EXPECT_THROW(gunzip(two + "rubbish", "x.gz", no_limit), InputError);
  EXPECT_THROW(gunzip(two + std::string(10, '\0') + "rubbish", "x.gz", no_limit), InputError);
}

TEST(Gzip, RefusesEveryTruncation) {
  const std::string whole = gzip(some_text(500));
  for (size_t n = 0; n < whole.size(); ++n) EXPECT_THROW(gunzip(whole.substr(0, n), "x.gz", no_limit), InputError) << n;
}

TEST(Gzip, NeverPassesAlteredContent) {
  const std::string text = some_text(500), whole = gzip(text);
  int refused = 0;
  for (size_t i = 0; i < whole.size(); ++i) {
    std::string damaged = whole;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x10);
    try {
      // Bits of the header that carry a time or a system's name may change freely; the content may not.
      EXPECT_EQ(gunzip(damaged, "x.gz", no_limit), text) << i;
    } catch (const InputError& e) {
      EXPECT_EQ(std::string(e.what()).find("x.gz: "), 0u) << e.what();
      ++refused;
    }
  }
  EXPECT_GT(refused, static_cast<int>(whole.size()) - 12);
}

TEST(Gzip, HoldsToTheSizeLimit) {
  const std::string bomb = gzip(std::string(8 << 20, '\0'));
  EXPECT_LT(bomb.size(), 10'000u);
  EXPECT_THROW(gunzip(bomb, "bomb.gz", 1 << 20), InputError);
  EXPECT_THROW(gunzip(bomb, "bomb.gz", (8 << 20) - 1), InputError);
  EXPECT_EQ(gunzip(bomb, "bomb.gz", 8 << 20).size(), 8u << 20);
}

TEST(Gzip, NamesTheFault) {
  try {
    gunzip(gzip("some text").substr(0, 20), "cut.gz", no_limit);
    FAIL() << "was read";
  } catch (const InputError& e) {
    EXPECT_NE(std::string(e.what()).find("cut.gz: the gzip data ends too early"), std::string::npos) << e.what();
  }
  EXPECT_THROW(gunzip("plain text", "x", no_limit), InputError);
  EXPECT_THROW(GzipReader("/"), InputError);
  EXPECT_THROW(GzipReader("/no/such/file.gz"), InputError);
}

}  // namespace
}  // namespace ermoe::testing
