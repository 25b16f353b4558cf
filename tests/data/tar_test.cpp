// Tar reading: every dialect's names and sizes, plain and compressed, and no broken archive passes.
#include "data/tar.h"

#include "core/error.h"
#include "tests/data/gzip_writer.h"
#include "tests/data/tar_writer.h"
#include "tests/data/test_data.h"
#include "tests/scratch.h"

#include <gtest/gtest.h>

namespace ermoe::testing {
namespace {

class Tar : public ::testing::Test {
 protected:
  TarReader open(const std::string& bytes, TarLimits limits = {}) {
    write_file(folder_.file("a.tar"), bytes);
    return TarReader(folder_.file("a.tar"), limits);
  }
  std::vector<std::string> names(const std::string& bytes) {
    std::vector<std::string> result;
    const TarReader tar = open(bytes);
    for (const TarEntry& e : tar.entries()) result.push_back(e.name);
    return result;
  }
  std::string fault(const std::string& bytes) {
    try {
      open(bytes);
      return "was read";
    } catch (const InputError& e) {
      EXPECT_NE(std::string(e.what()).find("a.tar"), std::string::npos) << e.what();
      return e.what();
    }
  }
  ScratchFolder folder_;
};

using Names = std::vector<std::string>;

TEST_F(Tar, ReadsFilesPlainAndCompressed) {
  const std::string big(1300, 'x');
  const std::string bytes = tar_member({"./one.txt", "first"}) + tar_member({.name = "folder/", .type = '5'}) +
                            tar_member({"folder/two", big}) + tar_member({"empty"}) + tar_end();
  for (const bool compressed : {false, true}) {
    const TarReader tar = open(compressed ? gzip(bytes) : bytes);
    ASSERT_EQ(tar.entries().size(), 3u);
    ASSERT_NE(tar.find("one.txt"), nullptr);
    EXPECT_EQ(tar.read(*tar.find("one.txt")), "first");
    EXPECT_EQ(tar.read(*tar.find("folder/two")), big);
    EXPECT_EQ(tar.read(*tar.find("empty")), "");
    EXPECT_EQ(tar.find("folder"), nullptr);
    EXPECT_EQ(tar.find("one"), nullptr);
  }
}

TEST_F(Tar, ReadsLongNamesOfEveryDialect) {
  const std::string name = std::string(150, 'a') + "/" + std::string(120, 'b');
  const std::string gnu = tar_member({.name = "././@LongLink", .content = name + std::string(1, '\0'), .type = 'L', .magic = "ustar  "});
  const std::string pax =
      tar_member({.name = "PaxHeaders/x", .content = pax_record("mtime", "1.5") + pax_record("path", name), .type = 'x'});
  const std::string file = tar_member({name.substr(0, 100), "content"});
  for (const std::string& extension : {gnu, pax}) {
    const TarReader tar = open(extension + file + tar_member({"next", "n"}) + tar_end());
    ASSERT_EQ(tar.entries().size(), 2u);
    EXPECT_EQ(tar.entries()[0].name, name);
    EXPECT_EQ(tar.read(tar.entries()[0]), "content");
    EXPECT_EQ(tar.entries()[1].name, "next");
  }
  EXPECT_EQ(names(tar_member({.name = "b", .prefix = "a"}) + tar_end()), Names{"a/b"});
  // GNU headers keep times where POSIX ones keep the prefix.
  EXPECT_EQ(names(tar_member({.name = "b", .magic = "ustar  ", .prefix = "14000000000"}) + tar_end()), Names{"b"});
  EXPECT_EQ(names(tar_member({.name = std::string(100, 'c'), .magic = ""}) + tar_end()), Names{std::string(100, 'c')});
}

TEST_F(Tar, ReadsSizesInBase256AndPax) {
  const std::string base_256 = std::string("\x80", 1) + std::string(10, '\0') + "\x05";
  const TarReader tar = open(tar_member({.name = "a", .content = "12345", .size_field = base_256}) + tar_end());
  EXPECT_EQ(tar.read(tar.entries().at(0)), "12345");
  const TarReader pax = open(tar_member({.name = "p", .content = pax_record("size", "5"), .type = 'x'}) +
                             tar_member({.name = "a", .content = "12345", .size_field = "00000000000"}) + tar_end());
  EXPECT_EQ(pax.read(pax.entries().at(0)), "12345");
}

TEST_F(Tar, LaterFilesReplaceEarlierOnes) {
  const TarReader tar = open(tar_member({"a", "old"}) + tar_member({"b", "b"}) + tar_member({"a", "new"}) + tar_end());
  ASSERT_EQ(tar.entries().size(), 2u);
  EXPECT_EQ(tar.entries()[0].name, "a");
  EXPECT_EQ(tar.read(tar.entries()[0]), "new");
  EXPECT_EQ(tar.read(*tar.find("b")), "b");
}

TEST_F(Tar, KeepsHostileNamesAsKeys) {
  const std::string bytes =
      tar_member({"../../etc/passwd", "x"}) + tar_member({"/absolute", "y"}) + tar_member({"\x1b[31mred", "z"}) + tar_end();
  const TarReader tar = open(bytes);
  EXPECT_EQ(tar.read(*tar.find("../../etc/passwd")), "x");
  EXPECT_EQ(tar.read(*tar.find("/absolute")), "y");
  EXPECT_EQ(tar.label(tar.entries()[2]).find('\x1b'), std::string::npos);
}

TEST_F(Tar, RefusesEveryTruncation) {
  const std::string whole = tar_member({"a", "first"}) + tar_member({"b", std::string(700, 'x')});
  for (size_t n = 0; n <= whole.size(); n += 73) EXPECT_THROW(open(whole.substr(0, n)), InputError) << n;
  EXPECT_NE(fault(whole).find("without an end mark"), std::string::npos);
  EXPECT_EQ(names(whole + tar_end()), (Names{"a", "b"}));
  const std::string compressed = gzip(whole + tar_end());
  EXPECT_THROW(open(compressed.substr(0, compressed.size() / 2)), InputError);
}

TEST_F(Tar, RefusesDamage) {
  const std::string first = tar_member({"a", "first"}), second = tar_member({"b", "second"});
  std::string damaged = second;
  damaged[0] = 'c';
  EXPECT_NE(fault(first + damaged + tar_end()).find("wrong checksum"), std::string::npos);
  EXPECT_NE(fault(damaged + tar_end()).find("is not a tar archive"), std::string::npos);
  EXPECT_NE(fault("").find("is empty"), std::string::npos);
  EXPECT_NE(fault(std::string(5000, 'x')).find("is not a tar archive"), std::string::npos);
  EXPECT_NE(fault(first + std::string(512, '\0') + second + tar_end()).find("data follow the zeros"), std::string::npos);
  EXPECT_NE(fault(tar_member({.name = "s", .type = 'S'}) + tar_end()).find("sparse"), std::string::npos);
}

TEST_F(Tar, RefusesHostileSizes) {
  for (const std::string& size :
       {std::string("77777777777"), std::string("\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), std::string("\xff", 1),
        std::string("-0000000001"), std::string("0000x"), std::string("\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", 12)})
    EXPECT_THROW(open(tar_member({.name = "a", .content = "x", .size_field = size}) + tar_end()), InputError);
  const auto pax = [](const std::string& records) {
    return tar_member({.name = "p", .content = records, .type = 'x'}) + tar_member({"a"}) + tar_end();
  };
  for (const std::string& records :
       {std::string("99 path=a\n"), std::string("-1 path=a\n"), std::string("3 a"), std::string("9999999999999999999999 a=b\n"),
        std::string("6 path\n"), std::string("path=a\n"), pax_record("size", "18446744073709551615"), pax_record("size", "1e3")})
    EXPECT_THROW(open(pax(records)), InputError) << records;
  EXPECT_THROW(open(tar_member({.name = "L", .content = std::string((1 << 20) + 1, 'n'), .type = 'L'}) + tar_member({"a"}) + tar_end()),
               InputError);
}

TEST_F(Tar, HoldsToItsLimits) {
  const std::string bytes = tar_member({"a", std::string(5000, 'x')}) + tar_end();
  EXPECT_THROW(open(gzip(bytes), {.max_inflated_bytes = 4096}), InputError);
  const TarReader tar = open(bytes, {.max_entry_bytes = 4999});
  EXPECT_THROW(tar.read(tar.entries()[0]), InputError);
}

TEST(TarData, ReadsTheCifarArchive) {
  ERMOE_REQUIRE_TEST_DATA(path, "cifar10_small.tar.gz");
  const TarReader tar(path);
  EXPECT_EQ(tar.entries().size(), 6000u);
  for (const TarEntry& e : tar.entries()) ASSERT_TRUE(tar.read(e).starts_with("\xff\xd8\xff")) << e.name;
}

}  // namespace
}  // namespace ermoe::testing
