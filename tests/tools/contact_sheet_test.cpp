// The contact sheet: everything on it, nothing that a name or a query could add to it, pictures that are small.
#include "tools/contact_sheet.h"

#include "core/error.h"
#include "data/encode_jpeg.h"
#include "data/encode_png.h"
#include "data/image_files.h"
#include "tests/tools/temp_folder.h"

#include <gtest/gtest.h>

namespace ermoe {
namespace {

using testing::TempFolder;

size_t count(const std::string& text, std::string_view what) {
  size_t n = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
  return n;
}

ContactSheet sheet_of(const std::string& query, const std::string& name) {
  return {.sections = {{.query = query, .images = {{.rank = 1, .score = 0.25f, .name = name, .picture = "data:image/jpeg;base64,AAAA"}}}},
          .source = "One image."};
}

TEST(ContactSheet, HoldsQueryRankScoreNameAndPicture) {
  const std::string page = contact_sheet_page(sheet_of("a dog on a beach", "photos/dog.jpg"));
  EXPECT_EQ(count(page, "<title>a dog on a beach</title>"), 1u);
  EXPECT_EQ(count(page, "<h1><bdi>a dog on a beach</bdi></h1>"), 1u);
  EXPECT_EQ(count(page, "<img loading=\"lazy\" alt=\"Number 1: photos/dog.jpg\" src=\"data:image/jpeg;base64,AAAA\">"), 1u);
  EXPECT_EQ(count(page, "<bdi>photos/dog.jpg</bdi>"), 1u);
  EXPECT_EQ(count(page, "0.2500"), 1u);
  EXPECT_EQ(count(page, "One image."), 1u);
  EXPECT_EQ(count(page, "<nav"), 0u) << "one query needs no list of queries";
}

TEST(ContactSheet, SeveralQueriesAreSections) {
  ContactSheet sheet = sheet_of("one", "a.jpg");
  sheet.sections.push_back({.query = "two", .images = {}});
  const std::string page = contact_sheet_page(sheet);
  EXPECT_EQ(count(page, "<section"), 2u);
  EXPECT_EQ(count(page, "<a href=\"#query-2\"><bdi>two</bdi></a>"), 1u);
  EXPECT_EQ(count(page, "<h2><bdi>two</bdi></h2>"), 1u);
  EXPECT_EQ(count(page, "No image could be read."), 1u);
  EXPECT_THROW(contact_sheet_page({}), Error);
}

TEST(ContactSheet, NamesAndQueriesAreText) {
  const std::string bad = "\"><script>alert(1)</script><img src=x onerror=alert(2)>{{title}}&amp;</title>";
  ContactSheet sheet = sheet_of(bad, bad), plain = sheet_of("q", "n");
  for (ContactSheet* s : {&sheet, &plain}) s->sections.push_back(s->sections[0]);
  sheet.source = bad;
  const std::string page = contact_sheet_page(sheet), tame = contact_sheet_page(plain);
  for (const char* tag : {"<script", "<img", "</title>", "<", ">", "\""}) EXPECT_EQ(count(page, tag), count(tame, tag)) << tag;
  EXPECT_EQ(count(page, "&amp;amp;"), count(page, "{{title}}")) << "every occurrence as it was typed";
  EXPECT_GE(count(page, "{{title}}"), 8u);
}

TEST(ContactSheet, AFileThatWentAwayIsSaid) {
  ContactSheet sheet = sheet_of("q", "n");
  sheet.sections[0].images[0].picture.clear();
  const std::string page = contact_sheet_page(sheet);
  EXPECT_EQ(count(page, "<img"), 0u);
  EXPECT_EQ(count(page, "This file could not be read again."), 1u);
}

Image plain_image(int64_t height, int64_t width) {
  return {.height = height, .width = width, .channels = 3, .pixels = std::vector<uint8_t>(static_cast<size_t>(height * width * 3), 90)};
}

/// A JPEG's size, from its frame header within a data: URI.
std::pair<int, int> size_of_jpeg(const std::string& uri) {
  const std::string_view letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  uint32_t bits = 0;
  int have = 0;
  for (const char c : uri.substr(uri.find(',') + 1)) {
    if (c == '=') break;
    bits = bits << 6 | static_cast<uint32_t>(letters.find(c));
    if ((have += 6) >= 8) bytes += static_cast<char>(bits >> (have -= 8) & 255);
  }
  const size_t at = bytes.find("\xff\xc0");
  const auto two = [&](size_t k) { return static_cast<uint8_t>(bytes[at + k]) * 256 + static_cast<uint8_t>(bytes[at + k + 1]); };
  return {two(5), two(7)};
}

TEST(Thumbnail, IsNeverTheFileAndNeverEnlarged) {
  const TempFolder folder;
  folder.file("a_large.jpg", encode_jpeg(plain_image(900, 1600), 95));
  folder.file("b_small.png", encode_png(plain_image(100, 80)));
  folder.file("c_thin.png", encode_png(plain_image(1, 2000)));
  folder.file("d_tiny.png", encode_png(plain_image(20, 16)));
  const auto images = open_image_files({folder.path().string()});
  EXPECT_EQ(size_of_jpeg(thumbnail(*images, 0, 384)), std::pair(216, 384));
  EXPECT_EQ(size_of_jpeg(thumbnail(*images, 0, 100)), std::pair(56, 100));
  EXPECT_EQ(size_of_jpeg(thumbnail(*images, 1, 384)), std::pair(100, 80));
  EXPECT_EQ(size_of_jpeg(thumbnail(*images, 2, 384)), std::pair(1, 384));
  EXPECT_TRUE(thumbnail(*images, 3, 384).starts_with("data:image/png;base64,"));
}

class SheetPlace : public ::testing::Test {
 protected:
  /// What is said of a sheet at `path` beside a search of photos/ and extra.png; empty where it may be written.
  std::string fault_at(const std::string& path) const {
    try {
      check_sheet(path, *open_image_files({folder_ / "photos", folder_ / "extra.png", folder_ / "gone.png"}));
    } catch (const InputError& fault) {
      return fault.what();
    }
    return "";
  }
  void expect_searched(const std::string& path) const {
    EXPECT_EQ(fault_at(path), "--sheet " + path + ": is one of the files that are searched, and would be replaced");
  }
  void expect_kept(const std::string& path) const {
    EXPECT_EQ(fault_at(path), "--sheet " + path + ": exists and is no contact sheet, so it is not replaced");
  }

  TempFolder folder_;
  std::string inner_ = folder_.file("photos/far/a.png", encode_png(plain_image(20, 16)));
  std::string extra_ = folder_.file("extra.png", encode_png(plain_image(20, 16)));
};

TEST_F(SheetPlace, IsNewOrHoldsASheet) {
  EXPECT_EQ(fault_at(folder_ / "new.html"), "");
  EXPECT_EQ(fault_at(folder_ / "photos/new.html"), "");
  EXPECT_EQ(fault_at(folder_.file("photos/old.html", contact_sheet_page(sheet_of("a dog", "dog.jpg")))), "");
}

TEST_F(SheetPlace, IsNoFileThatIsSearched) {
  expect_searched(inner_);
  expect_searched(extra_);
  expect_searched(folder_ / "photos/../extra.png");
  expect_searched(folder_ / "photos/../gone.png");
  std::filesystem::create_symlink(extra_, folder_ / "link.html");
  expect_searched(folder_ / "link.html");
  folder_.file("extra.png", contact_sheet_page(sheet_of("a dog", "dog.jpg")));  // whatever it holds
  expect_searched(extra_);
}

TEST_F(SheetPlace, IsNoOtherFile) {
  expect_kept(folder_.file("mine.jpg", encode_jpeg(plain_image(20, 16), 95)));
  expect_kept(folder_.file("empty.html", ""));
  expect_kept(folder_.file("short.html", "<!doctype"));
  expect_kept(folder_.file("foreign.html", "<!DOCTYPE html>\n<p>Somebody else's page."));
  expect_kept("/dev/null");
}

TEST_F(SheetPlace, IsNoFolderAndLiesInOne) {
  for (const std::string& path : {folder_ / "photos", folder_ / "photos/"})
    EXPECT_EQ(fault_at(path), "--sheet " + path + ": is a folder, and the contact sheet is a file");
  EXPECT_EQ(fault_at(folder_ / "no/x.html"), "--sheet " + (folder_ / "no/x.html") + ": there is no folder " + (folder_ / "no"));
  EXPECT_EQ(fault_at(extra_ + "/x.html"), "--sheet " + extra_ + "/x.html: there is no folder " + extra_);
}

TEST(Thumbnail, OfABrokenFileIsRefusedByName) {
  const TempFolder folder;
  const std::string path = folder.file("broken.jpg", "\xff\xd8\xff nothing");
  try {
    thumbnail(*open_image_files({path}), 0, 384);
    FAIL();
  } catch (const InputError& fault) {
    EXPECT_NE(std::string(fault.what()).find("broken.jpg"), std::string::npos);
  }
}

}  // namespace
}  // namespace ermoe
