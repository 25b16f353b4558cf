// IDX and CIFAR binaries: small files made here, every lie of a header refused, and the real files where they are.
#include "data/dataset.h"
#include "tests/data/fixtures.h"
#include "tests/data/gzip_writer.h"
#include "tests/data/tar_writer.h"
#include "tests/data/test_data.h"

#include <array>
#include <cstdlib>

namespace ermoe {
namespace {

using testing::input_error;
using testing::ScratchFolder;
using testing::write;

std::string big_endian(uint32_t v) {
  return {static_cast<char>(v >> 24), static_cast<char>(v >> 16), static_cast<char>(v >> 8), static_cast<char>(v)};
}

std::string idx_images(uint32_t n, uint32_t height, uint32_t width) {
  std::string bytes = std::string("\0\0\x08\x03", 4) + big_endian(n) + big_endian(height) + big_endian(width);
  for (uint32_t i = 0; i < n * height * width; ++i) bytes += static_cast<char>(i * 7);
  return bytes;
}

std::string idx_labels(const std::string& labels) {
  return std::string("\0\0\x08\x01", 4) + big_endian(static_cast<uint32_t>(labels.size())) + labels;
}

std::string cifar10_record(int label, int shift) {
  std::string record(1, static_cast<char>(label));
  for (int i = 0; i < 3072; ++i) record += static_cast<char>(i / 1024 * 50 + i % 1024 / 32 + shift);
  return record;
}

class PackedSources : public ::testing::Test {
 protected:
  void write_pair(const std::string& part, uint32_t n, const std::string& labels) {
    write(folder.file(part + "-images-idx3-ubyte"), idx_images(n, 4, 6));
    write(folder.file(part + "-labels-idx1-ubyte"), idx_labels(labels));
  }
  std::string refused() {
    return input_error([&] { open_dataset(folder.path()); });
  }

  ScratchFolder folder;
};

TEST_F(PackedSources, IdxPairsAreRead) {
  write_pair("train", 3, std::string("\0\2\1", 3));
  write_pair("t10k", 2, std::string("\1\0", 2));
  const DatasetSplits splits = open_dataset(folder.path());
  ASSERT_TRUE(splits.train && splits.test);
  EXPECT_EQ(splits.train->size(), 3);
  EXPECT_EQ(splits.test->size(), 2);
  EXPECT_EQ(splits.train->class_names(), (std::vector<std::string>{"0", "1", "2"}));
  EXPECT_EQ(splits.test->class_names(), splits.train->class_names());
  EXPECT_EQ(splits.train->label(1), 2);
  const Image image = splits.train->read(1);
  EXPECT_EQ(image.height, 4);
  EXPECT_EQ(image.width, 6);
  EXPECT_EQ(image.channels, 1);
  for (size_t i = 0; i < 24; ++i) ASSERT_EQ(image.pixels[i], static_cast<uint8_t>((24 + i) * 7));
  EXPECT_NE(splits.train->name(1).find("train-images-idx3-ubyte[1]"), std::string::npos);
}

TEST_F(PackedSources, CompressedIdxIsReadAndATwinIgnored) {
  write(folder.file("train-images-idx3-ubyte.gz"), testing::gzip(idx_images(2, 4, 4)));
  write(folder.file("train-labels-idx1-ubyte.gz"), testing::gzip(idx_labels(std::string("\0\1", 2))));
  EXPECT_EQ(open_dataset(folder.path()).train->size(), 2);
  write(folder.file("train-images-idx3-ubyte"), idx_images(2, 4, 4));
  EXPECT_EQ(open_dataset(folder.path()).train->size(), 2);
}

TEST_F(PackedSources, IdxFaultsAreNamed) {
  write_pair("train", 3, std::string("\0\1", 2));
  EXPECT_NE(refused().find("2 labels for 3 images"), std::string::npos);
  write(folder.file("train-labels-idx1-ubyte"), idx_labels(std::string(3, '\0')));
  EXPECT_NE(refused().find("all labels are 0"), std::string::npos);
  std::filesystem::remove(folder.file("train-labels-idx1-ubyte"));
  EXPECT_NE(refused().find("train-labels-idx1-ubyte"), std::string::npos);
}

TEST_F(PackedSources, IdxHeadersThatLieAreRefused) {
  const std::string good = idx_images(2, 4, 4);
  write(folder.file("train-labels-idx1-ubyte"), idx_labels(std::string("\0\1", 2)));
  const auto with = [&](size_t at, const std::string& bytes) { return std::string(good).replace(at, bytes.size(), bytes); };
  const std::string huge = big_endian(0xffffffffu);
  const std::vector<std::string> bad = {"",
                                        good.substr(0, 3),
                                        good.substr(0, 15),
                                        good.substr(0, good.size() - 1),
                                        good + "x",
                                        with(0, "x"),
                                        with(2, "\x0d"),
                                        with(3, "\x01"),
                                        with(4, huge),
                                        with(4, huge + huge + huge),
                                        with(8, std::string(4, '\0'))};
  for (size_t i = 0; i < bad.size(); ++i) {
    write(folder.file("train-images-idx3-ubyte"), bad[i]);
    EXPECT_NE(refused().find("train-images-idx3-ubyte"), std::string::npos) << i;
  }
}

TEST_F(PackedSources, CifarFolderIsRead) {
  write(folder.file("x/data_batch_1.bin"), cifar10_record(3, 0) + cifar10_record(9, 1));
  write(folder.file("x/data_batch_2.bin"), cifar10_record(0, 2));
  write(folder.file("x/test_batch.bin"), cifar10_record(5, 3));
  write(folder.file("x/batches.meta.txt"), "A\r\nB\nC\nD\nE\nF\nG\nH\nI\nJ\n\n");
  const DatasetSplits splits = open_dataset(folder.path());
  ASSERT_TRUE(splits.train && splits.test);
  EXPECT_EQ(splits.train->size(), 3);
  EXPECT_EQ(splits.train->class_names().at(0), "A");
  EXPECT_EQ(splits.train->class_names().at(9), "J");
  EXPECT_EQ(splits.train->label(1), 9);
  EXPECT_EQ(splits.test->label(0), 5);
  EXPECT_NE(splits.train->name(2).find("data_batch_2.bin[0]"), std::string::npos);
  const Image image = splits.train->read(2);
  EXPECT_EQ(image.channels, 3);
  for (int64_t y = 0; y < 32; ++y) {
    for (int64_t c = 0; c < 3; ++c) ASSERT_EQ(image.pixels[static_cast<size_t>((y * 32 + 11) * 3 + c)], c * 50 + y + 2);
  }
}

TEST_F(PackedSources, CifarInsideAnArchiveIsRead) {
  write(folder.file("c.tar"), testing::tar_member({"cifar-10-batches-bin/data_batch_1.bin", cifar10_record(3, 0)}) +
                                  testing::tar_member({"cifar-10-batches-bin/test_batch.bin", cifar10_record(4, 0)}) + testing::tar_end());
  const DatasetSplits splits = open_dataset(folder.file("c.tar"));
  EXPECT_EQ(splits.train->label(0), 3);
  EXPECT_EQ(splits.test->label(0), 4);
}

TEST_F(PackedSources, Cifar100TakesTheFineLabel) {
  const std::string pixels = cifar10_record(0, 0).substr(1);
  write(folder.file("train.bin"), std::string("\x05\x63", 2) + pixels + std::string("\x01\x07", 2) + pixels);
  const DatasetSplits splits = open_dataset(folder.path());
  EXPECT_EQ(splits.train->class_names().size(), 100u);
  EXPECT_EQ(splits.train->label(0), 99);
  EXPECT_EQ(splits.train->label(1), 7);
  EXPECT_EQ(splits.train->read(1).pixels[3], 0);
}

TEST_F(PackedSources, CifarFaultsAreNamed) {
  write(folder.file("data_batch_1.bin"), cifar10_record(1, 0) + cifar10_record(10, 0));
  EXPECT_NE(refused().find("record 1 has the label 10"), std::string::npos);
  for (const std::string& bytes : {std::string(), cifar10_record(1, 0).substr(1), cifar10_record(1, 0) + "xx"}) {
    write(folder.file("data_batch_1.bin"), bytes);
    EXPECT_NE(refused().find("data_batch_1.bin"), std::string::npos);
  }
  write(folder.file("data_batch_1.bin"), cifar10_record(1, 0));
  write(folder.file("test_batch.bin"), "\x01" + cifar10_record(1, 0));
  EXPECT_NE(refused().find("CIFAR-100 records beside"), std::string::npos);
}

TEST(RealFiles, CifarHead400) {
  ERMOE_REQUIRE_TEST_DATA(path, "cifar10_head400.bin");
  const DatasetSplits splits = open_dataset(path);
  ASSERT_TRUE(splits.train);
  EXPECT_EQ(splits.train->size(), 400);
  EXPECT_EQ(splits.train->class_names().at(static_cast<size_t>(splits.train->label(0))), "frog");
  // Pixel 5 of the first record, straight from the file: green and blue follow red by one plane and two.
  std::ifstream file(path, std::ios::binary);
  std::array<char, 3073> record{};
  file.read(record.data(), record.size());
  const Image image = splits.train->read(0);
  for (size_t c = 0; c < 3; ++c) EXPECT_EQ(image.pixels[5 * 3 + c], static_cast<uint8_t>(record[1 + c * 1024 + 5]));
}

TEST(RealFiles, FashionMnist) {
  const char* folder = std::getenv("ERMOE_FASHION_MNIST");
  if (folder == nullptr) GTEST_SKIP() << "ERMOE_FASHION_MNIST names no folder";
  const DatasetSplits splits = open_dataset(folder);
  ASSERT_TRUE(splits.train && splits.test);
  EXPECT_EQ(splits.train->size(), 60000);
  EXPECT_EQ(splits.test->size(), 10000);
  EXPECT_EQ(splits.train->class_names().size(), 10u);
  std::vector<int64_t> counts(10);
  for (int64_t i = 0; i < 60000; ++i) ++counts[static_cast<size_t>(splits.train->label(i))];
  EXPECT_EQ(counts, std::vector<int64_t>(10, 6000));
  EXPECT_EQ(splits.train->read(59999).pixels.size(), 784u);
}

}  // namespace
}  // namespace ermoe
