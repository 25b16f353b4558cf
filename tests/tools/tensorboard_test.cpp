// The event file, read back by a reader written from the formats' descriptions and not from the writer.
#include "tools/tensorboard.h"

#include "tests/tools/temp_folder.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>

namespace ermoe {
namespace {

using testing::TempFolder;

/// CRC-32C one bit at a time.
uint32_t slow_crc32c(std::string_view bytes) {
  uint32_t crc = ~0u;
  for (const char c : bytes) {
    for (int bit = 0; bit < 8; ++bit) {
      const uint32_t top = (crc ^ (static_cast<uint8_t>(c) >> bit)) & 1;
      crc = (crc >> 1) ^ (top ? 0x82f63b78u : 0);
    }
  }
  return ~crc;
}

uint32_t masked(std::string_view bytes) {
  const uint32_t crc = slow_crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

template <typename T>
T take(std::string_view& bytes) {
  T value{};
  if (bytes.size() < sizeof(T)) throw std::runtime_error("too short");
  std::memcpy(&value, bytes.data(), sizeof(T));
  bytes.remove_prefix(sizeof(T));
  return value;
}

uint64_t take_varint(std::string_view& bytes) {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    const auto byte = take<uint8_t>(bytes);
    value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
  throw std::runtime_error("endless varint");
}

std::vector<std::string> records_of(std::string_view bytes) {
  std::vector<std::string> records;
  while (!bytes.empty()) {
    const auto length_bytes = bytes.substr(0, 8);
    const auto length = take<uint64_t>(bytes);
    EXPECT_EQ(take<uint32_t>(bytes), masked(length_bytes));
    const auto data = bytes.substr(0, length);
    EXPECT_EQ(data.size(), length);
    bytes.remove_prefix(data.size());
    EXPECT_EQ(take<uint32_t>(bytes), masked(data));
    records.emplace_back(data);
  }
  return records;
}

/// Fields of a protobuf message: number to raw contents, in order of appearance.
std::multimap<int, std::string> fields_of(std::string_view bytes) {
  std::multimap<int, std::string> fields;
  while (!bytes.empty()) {
    const uint64_t key = take_varint(bytes);
    size_t size = 0;
    std::string content;
    switch (key & 7) {
      case 0: content = std::to_string(take_varint(bytes)); break;
      case 1: size = 8; break;
      case 2: size = take_varint(bytes); break;
      case 5: size = 4; break;
      default: throw std::runtime_error("unknown wire type");
    }
    if ((key & 7) != 0) {
      if (size > bytes.size()) throw std::runtime_error("field beyond its message");
      content = bytes.substr(0, size);
      bytes.remove_prefix(size);
    }
    fields.emplace(static_cast<int>(key >> 3), content);
  }
  return fields;
}

template <typename T>
T as(const std::string& bytes) {
  T value{};
  EXPECT_EQ(bytes.size(), sizeof(T));
  std::memcpy(&value, bytes.data(), std::min(bytes.size(), sizeof(T)));
  return value;
}

TEST(TensorBoard, ChecksumsAreThoseOfRfc3720) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  EXPECT_EQ(crc32c(""), 0u);
}

TEST(TensorBoard, RowsReadBack) {
  TempFolder temp;
  TensorBoardWriter writer(temp.path().string(), 0);
  writer.add(300, {{"train/loss", 2.5}, {"train/lr", 1e-3}});
  writer.add(int64_t{1} << 40, {{"eval/accuracy", 0.75}});
  writer.add(7, {});
  const auto records = records_of(TempFolder::read(writer.path()));
  ASSERT_EQ(records.size(), 3u);
  EXPECT_EQ(fields_of(records[0]).find(3)->second, "brain.Event:2");

  const auto first = fields_of(records[1]);
  EXPECT_NEAR(as<double>(first.find(1)->second), static_cast<double>(std::time(nullptr)), 60);
  EXPECT_EQ(first.find(2)->second, "300");
  const auto values = fields_of(first.find(5)->second);
  ASSERT_EQ(values.count(1), 2u);
  const auto loss = fields_of(values.begin()->second), lr = fields_of(std::next(values.begin())->second);
  EXPECT_EQ(loss.find(1)->second, "train/loss");
  EXPECT_EQ(as<float>(loss.find(2)->second), 2.5f);
  EXPECT_EQ(lr.find(1)->second, "train/lr");
  EXPECT_EQ(as<float>(lr.find(2)->second), 1e-3f);
  EXPECT_EQ(fields_of(records[2]).find(2)->second, "1099511627776");
}

TEST(TensorBoard, AResumedFileSaysWhereItTakesOver) {
  TempFolder temp;
  TensorBoardWriter writer(temp.path().string(), 41);
  const auto records = records_of(TempFolder::read(writer.path()));
  ASSERT_EQ(records.size(), 2u);
  const auto start = fields_of(records[1]);
  EXPECT_EQ(start.find(2)->second, "41");
  EXPECT_EQ(fields_of(start.find(7)->second).find(1)->second, "1");
  EXPECT_NE(std::filesystem::path(writer.path()).filename().string().find("events.out.tfevents."), std::string::npos);
}

}  // namespace
}  // namespace ermoe
