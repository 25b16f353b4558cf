// Inspection: every format is recognised by content, described, and refused when broken.
#include "data/probe.h"

#include "core/error.h"
#include "data/encode_png.h"
#include "tests/data/gzip_writer.h"
#include "tests/data/image_samples.h"
#include "tests/data/nifti_files.h"
#include "tests/data/tar_writer.h"
#include "tests/data/test_data.h"
#include "tests/scratch.h"

#include "core/file_io.h"

#include <gtest/gtest.h>

namespace ermoe::testing {
namespace {

using namespace std::string_literals;

class Inspect : public ::testing::Test {
 protected:
  FileReport report(const std::string& bytes) {
    write_file(folder_.file("x"), bytes);
    return inspect_file(folder_.file("x"));
  }
  std::string line(const std::string& bytes) {
    try {
      return report(bytes).description;
    } catch (const InputError& e) {
      const std::string what = e.what();
      EXPECT_TRUE(what.starts_with(folder_.file("x"))) << what;
      return "refused: " + what.substr(folder_.file("x").size() + 2);
    }
  }
  ScratchFolder folder_;
};

const std::string idx = "\0\0\x08\2\0\0\0\2\0\0\0\3abcdef"s;

std::string cifar(int records, int labels, char label) {
  std::string bytes;
  for (int i = 0; i < records; ++i) bytes += std::string(static_cast<size_t>(labels), label) + std::string(3072, 'p');
  return bytes;
}

TEST_F(Inspect, RecognisesFormatsByContent) {
  EXPECT_EQ(line(encode_png(gradient(3, 5))), "PNG image, 5 x 3");
  EXPECT_EQ(line(make_jpeg(gradient(8, 16))), "JPEG image, 16 x 8");
  EXPECT_EQ(line(make_gif(1, 2, "\0\1"s)), "GIF image, 2 x 1");
  EXPECT_EQ(line(tar_member({"a", "abc"}) + tar_end()), "tar archive, 1 file of 3 bytes");
  EXPECT_EQ(line(gzip(tar_member({"a", "abc"}) + tar_member({"b"}) + tar_end())), "tar archive, 2 files of 3 bytes, gzip-compressed");
  EXPECT_EQ(line(idx), "IDX array, 2 x 3");
  EXPECT_EQ(line(gzip(idx)), "IDX array, 2 x 3, gzip-compressed");
  EXPECT_EQ(line(cifar(2, 1, 9)), "CIFAR-10 binary, 2 images");
  EXPECT_EQ(line(cifar(1, 2, 19)), "CIFAR-100 binary, 1 image");
  EXPECT_EQ(line(" {\"a\": 1, \"b\": 2}"), "JSON, an object of 2 keys");
  EXPECT_EQ(line("[1]"), "JSON, an array of 1 value");
  EXPECT_EQ(line(gzip("nothing known")), "13 bytes of no format known here, gzip-compressed");
  EXPECT_EQ(line("\x02\0\0\0\0\0\0\0{}"s), "safetensors, 0 tensors of 0 bytes");
  EXPECT_EQ(report(idx).format, "IDX");
  for (const ByteOrder order : {ByteOrder::little, ByteOrder::big}) {
    for (const int version : {1, 2}) {
      const std::string volume = NiftiBytes({.version = version, .order = order}).bytes() + std::string(96, 'v');
      EXPECT_EQ(line(gzip(volume)), fmt::format("NIfTI-{} volume, 2 x 3 x 4, axes LAS, gzip-compressed", version));
      EXPECT_TRUE(line(volume.substr(0, volume.size() - 9)).starts_with("refused: its NIfTI header claims"));
    }
  }
}

TEST_F(Inspect, RefusesBrokenFiles) {
  const std::string png = encode_png(gradient(3, 5)), tar = tar_member({"a", "abc"}) + tar_end();
  EXPECT_TRUE(line(png.substr(0, png.size() - 5)).starts_with("refused: the PNG is damaged"));
  EXPECT_TRUE(line(tar.substr(0, 1024)).starts_with("refused: the tar archive is cut off"));
  EXPECT_TRUE(line(gzip(tar).substr(0, 60)).starts_with("refused: the gzip data ends too early"));
  EXPECT_EQ(line(idx + "g"), "refused: the IDX file holds 19 bytes, its header promises 18");
  EXPECT_EQ(line(idx.substr(0, 15)), "refused: the IDX file holds 15 bytes, its header promises 18");
  EXPECT_TRUE(line("\0\0\x08\3\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"s).starts_with("refused: the IDX header promises"));
  EXPECT_TRUE(line("\0\0\x08\3\0\0\0\2"s).starts_with("refused: the IDX file ends within"));
  EXPECT_EQ(line(cifar(2, 1, 9) + cifar(1, 1, 10)), "refused: record 2 of a CIFAR-10 binary has label 10");
  EXPECT_TRUE(line("{\"a\": ").starts_with("refused: "));
  EXPECT_EQ(line("nothing known"), "refused: not a file of a format known here");
  EXPECT_EQ(line(""), "refused: the file is empty");
  EXPECT_THROW(inspect_file(folder_.path()), InputError);
  EXPECT_THROW(inspect_file(folder_.file("absent")), InputError);
}

TEST_F(Inspect, ReadsRealData) {
  ERMOE_REQUIRE_TEST_DATA(path, "cifar10_head400.bin");
  EXPECT_EQ(inspect_file(path).description, "CIFAR-10 binary, 400 images");
}

}  // namespace
}  // namespace ermoe::testing
