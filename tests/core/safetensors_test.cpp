// The format against files written here byte by byte, every conversion, every refusal, and files damaged at random.
#include "core/safetensors.h"

#include "core/rng.h"
#include "tests/scratch.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <ctime>
#include <fstream>
#include <limits>

namespace ermoe::testing {
namespace {

class SafetensorsTest : public ::testing::Test {
 protected:
  std::string put(const std::string& header, const std::string& data = "") {
    const uint64_t length = header.size();
    return put_raw(std::string(reinterpret_cast<const char*>(&length), 8) + header + data);
  }
  std::string put_raw(const std::string& bytes) {
    std::ofstream(path_, std::ios::binary) << bytes;
    return path_;
  }
  /// The fault without the file's name in front of it.
  template <typename Fn>
  std::string fault_of(Fn&& fn) {
    try {
      fn();
    } catch (const InputError& e) {
      const std::string what = e.what();
      EXPECT_EQ(what.substr(0, path_.size()), path_);
      EXPECT_EQ(what.find('\n'), std::string::npos);
      return what.substr(std::min(what.size(), path_.size() + 2));
    }
    return "accepted";
  }
  std::string open_fault(const std::string& header, const std::string& data = "") {
    return fault_of([&] { SafetensorsFile::open(put(header, data)); });
  }
  template <typename T>
  std::vector<T> load(const std::string& name) {
    const Tensor t = SafetensorsFile::open(path_).load(name, allocator_, DTypeOf<T>::value);
    return {t.span<T>().begin(), t.span<T>().end()};
  }
  template <typename T>
  Tensor tensor(const Shape& shape, const std::vector<T>& values) {
    return Tensor::from<T>(allocator_, shape, values);
  }

  CachingAllocator allocator_{make_host_source(), Fill::poison};
  ScratchFolder scratch_;
  std::string path_ = scratch_.file("t.safetensors");
};

template <typename T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

TEST_F(SafetensorsTest, ReadsAFileWrittenByHand) {
  put(R"({"__metadata__":{"format":"pt"},"b":{"dtype":"I64","shape":[],"data_offsets":[24,32]},)"
      R"("a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"none":{"dtype":"F64","shape":[4,0],"data_offsets":[24,24]}}   )",
      bytes_of<float>({1, 2, 3, 4, 5, 6}) + bytes_of<int64_t>({-7}));
  const auto file = SafetensorsFile::open(path_);
  EXPECT_EQ(file.names(), (std::vector<std::string>{"a", "b", "none"}));
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_TRUE(file.has("a") && !file.has("c"));
  EXPECT_EQ(file.shape("a"), (Shape{2, 3}));
  EXPECT_EQ(file.at("b").type, StoredType::i64);
  EXPECT_EQ(file.shape("b"), Shape{});
  EXPECT_EQ(file.shape("none"), (Shape{4, 0}));
  EXPECT_EQ(load<float>("a"), (std::vector<float>{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(load<int64_t>("b"), std::vector<int64_t>{-7});
  EXPECT_EQ(load<double>("none").size(), 0u);
  EXPECT_EQ(fault_of([&] { file.load("c", allocator_, DType::f32); }), "has no tensor 'c'");
}

TEST_F(SafetensorsTest, WrittenThenReadIsTheSame) {
  const std::vector<NamedTensor> entries{
      {"u8", tensor<uint8_t>({3}, {0, 1, 255})}, {"f32", tensor<float>({2, 2}, {1, -0.0f, INFINITY, 1e-40f})},
      {"bf16", tensor<bf16>({1}, {bf16(3.5f)})}, {"i64", tensor<int64_t>({}, {std::numeric_limits<int64_t>::min()})},
      {"f64", tensor<double>({1, 1, 1}, {0.1})}, {"i32", tensor<int32_t>({2}, {-1, 7})},
      {"empty", tensor<float>({0, 5}, {})}};
  write_safetensors(path_, entries, {{"step", "7"}, {"broken", "\xff"}});
  const auto file = SafetensorsFile::open(path_);
  EXPECT_EQ(file.tensors().size(), entries.size());
  EXPECT_EQ(file.metadata().at("step"), "7");
  for (const auto& [name, expected] : entries) {
    const Tensor got = file.load(name, allocator_, expected.dtype());
    EXPECT_EQ(got.shape(), expected.shape());
    EXPECT_EQ(std::memcmp(got.raw(), expected.raw(), expected.bytes()), 0) << name;
    EXPECT_EQ(file.at(name).offset % size_of(expected.dtype()), 0u) << name << " is not aligned";
  }
}

TEST_F(SafetensorsTest, NoTensorsAtAllIsAFile) {
  write_safetensors(path_, std::vector<NamedTensor>{});
  EXPECT_TRUE(SafetensorsFile::open(path_).tensors().empty());
}

TEST_F(SafetensorsTest, EveryHalfConvertsExactly) {
  std::vector<uint16_t> patterns(65536);
  for (size_t i = 0; i < patterns.size(); ++i) patterns[i] = static_cast<uint16_t>(i);
  put(R"({"x":{"dtype":"F16","shape":[65536],"data_offsets":[0,131072]}})", bytes_of(patterns));
  const std::vector<float> got = load<float>("x");
  const std::vector<double> wide = load<double>("x");
  for (int i = 0; i < 65536; ++i) {
    const int exponent = (i >> 10) & 31, fraction = i & 1023;
    double expected = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
    if (exponent == 31) expected = fraction == 0 ? INFINITY : NAN;
    if ((i & 0x8000) != 0) expected = -expected;
    const auto index = static_cast<size_t>(i);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(got[index]) && std::isnan(wide[index])) << i;
    } else {
      ASSERT_TRUE(got[index] == expected && wide[index] == expected && std::signbit(got[index]) == std::signbit(expected)) << i;
    }
  }
}

TEST_F(SafetensorsTest, ConvertsFloatsAndChecksIntegers) {
  const size_t many = 300'000;  // more than one chunk
  std::vector<double> doubles(many);
  for (size_t i = 0; i < many; ++i) doubles[i] = normal(RngKey{5}, i);
  write_safetensors(path_, {{"d", tensor<double>({static_cast<int64_t>(many)}, doubles)},
                            {"large", tensor<int64_t>({3}, {1, 2, 5'000'000'000})},
                            {"small", tensor<int64_t>({2}, {-2147483648, 255})}});
  const std::vector<float> floats = load<float>("d");
  const std::vector<bf16> halves = load<bf16>("d");
  for (size_t i = 0; i < many; ++i) {
    ASSERT_EQ(floats[i], static_cast<float>(doubles[i]));
    ASSERT_EQ(halves[i].bits, bf16(static_cast<float>(doubles[i])).bits);
  }
  EXPECT_EQ(load<int32_t>("small"), (std::vector<int32_t>{-2147483648, 255}));
  EXPECT_EQ(fault_of([&] { load<int32_t>("large"); }), "tensor 'large' holds 5000000000, which does not fit i32");
  EXPECT_EQ(fault_of([&] { load<uint8_t>("small"); }), "tensor 'small' holds -2147483648, which does not fit u8");
  EXPECT_EQ(fault_of([&] { load<float>("small"); }), "tensor 'small' is I64, which does not convert to f32");
  EXPECT_EQ(fault_of([&] { load<int64_t>("d"); }), "tensor 'd' is F64, which does not convert to i64");
  put(R"({"x":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]},"flag":{"dtype":"BOOL","shape":[2],"data_offsets":[1,3]}})",
      "\x01\x01\x02");
  EXPECT_EQ(fault_of([&] { load<float>("x"); }), "tensor 'x' is F8_E4M3, which does not convert to f32");
  EXPECT_EQ(load<int32_t>("flag"), (std::vector<int32_t>{1, 2}));
}

TEST_F(SafetensorsTest, LoadsPartsAndChecksShapes) {
  std::vector<float> values(24);
  for (size_t i = 0; i < 24; ++i) values[i] = static_cast<float>(i);
  write_safetensors(path_, {{"w", tensor<float>({4, 2, 3}, values)}, {"none", tensor<float>({0, 3}, {})}});
  const auto file = SafetensorsFile::open(path_);
  const Tensor rows = Tensor::empty(allocator_, {2, 2, 3}, DType::f64);
  for (const int64_t first : {0, 5, 12}) {
    file.load_part("w", first, rows);
    for (int64_t i = 0; i < 12; ++i) EXPECT_EQ(rows.data<double>()[i], static_cast<double>(first + i));
  }
  file.load_part("none", 0, Tensor::empty(allocator_, {0, 3}, DType::f32));
  file.load_part("w", 24, Tensor());
  EXPECT_EQ(fault_of([&] { file.load_part("w", 13, rows); }), "tensor 'w' has shape (4, 2, 3), which has no elements 13 to 25");
  EXPECT_EQ(fault_of([&] { file.load_part("w", -1, rows); }), "tensor 'w' has shape (4, 2, 3), which has no elements -1 to 11");
  EXPECT_EQ(fault_of([&] { file.load_into("w", rows); }), "tensor 'w' has shape (4, 2, 3) where (2, 2, 3) is needed");
}

TEST_F(SafetensorsTest, RefusesEachFaultInOneSentence) {
  const auto entry = [](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return fmt::format(R"({{"t":{{"dtype":{},"shape":{},"data_offsets":{}}}}})", dtype, shape, offsets);
  };
  EXPECT_EQ(open_fault(entry(R"("F32")", "[1]", "[0,4]"), "abcd"), "accepted");
  EXPECT_EQ(open_fault(entry(R"("F31")", "[1]", "[0,4]"), "abcd"), "tensor 't' has the unknown dtype 'F31'");
  EXPECT_EQ(open_fault(entry("3", "[1]", "[0,4]"), "abcd"), "tensor 't' has a dtype that is a JSON number");
  EXPECT_EQ(open_fault(entry(R"("F32")", "1", "[0,4]"), "abcd"), "tensor 't' has a shape that is a JSON number");
  for (const char* axis : {"[1.0]", "[-1]", "[\"1\"]", "[null]", "[[1]]"})
    EXPECT_EQ(open_fault(entry(R"("F32")", axis, "[0,4]"), "abcd"), "tensor 't' has an axis that is no whole number of 0 or more");
  EXPECT_EQ(open_fault(entry(R"("F32")", "[1,1,1,1,1,1,1]", "[0,4]"), "abcd"), "tensor 't' has 7 axes, above the limit of 6");
  for (const char* shape : {"[4294967296,4294967296]", "[0,4294967296,4294967296]", "[18446744073709551615]", "[4611686018427387904]"})
    EXPECT_EQ(open_fault(entry(R"("F32")", shape, "[0,0]")), "tensor 't' has a shape larger than any file");
  for (const char* offsets : {"[0]", "[0,4,4]", "[-4,0]", "[0.0,4.0]", "4", "{\"0\":0}"})
    EXPECT_EQ(open_fault(entry(R"("F32")", "[1]", offsets), "abcd"),
              "tensor 't' has data_offsets that are not two whole numbers of 0 or more");
  EXPECT_EQ(open_fault(entry(R"("F32")", "[1]", "[4,0]"), "abcd"), "tensor 't' begins at byte 4 but ends at 0");
  EXPECT_EQ(open_fault(entry(R"("F32")", "[1]", "[0,18446744073709551615]"), "abcd"),
            "tensor 't' ends at byte 18446744073709551615 of 4 bytes of data");
  EXPECT_EQ(open_fault(entry(R"("F32")", "[2]", "[0,4]"), "abcd"), "tensor 't' has 4 bytes, but F32 (2) takes 8");
  EXPECT_EQ(open_fault(entry(R"("F32")", "[1]", "[0,4]"), "abcdef"), "2 bytes after the last tensor");
  EXPECT_EQ(open_fault(entry(R"("F32")", "[1]", "[1,5]"), "abcde"), "tensor 't' follows 1 bytes that belong to no tensor");
  EXPECT_EQ(open_fault(R"({"t":[]})"), "tensor 't' is described by a JSON array instead of an object");
  EXPECT_EQ(open_fault(R"({"t":{"shape":[],"data_offsets":[0,0]}})"), "tensor 't' has no 'dtype'");
  EXPECT_EQ(open_fault(R"({"__metadata__":{"a":1}})"), "__metadata__ 'a' is a JSON number instead of a string");
  EXPECT_EQ(open_fault(R"({"__metadata__":[]})"), "__metadata__ is a JSON array instead of an object");
  EXPECT_EQ(
      open_fault(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})", "abc"),
      "tensor 'b' shares bytes with another tensor");
  EXPECT_EQ(open_fault("[]"), "the header does not begin with '{'; is this a safetensors file?");
  EXPECT_EQ(open_fault(""), "the header does not begin with '{'; is this a safetensors file?");
  EXPECT_EQ(fault_of([&] { SafetensorsFile::open(put_raw("1234567")); }), "7 bytes are too few for a safetensors file");
  EXPECT_EQ(fault_of([&] { SafetensorsFile::open(put_raw(std::string(8, '\xff'))); }),
            "a header of 18446744073709551615 bytes is above the limit of 100000000; is this a safetensors file?");
  EXPECT_EQ(fault_of([&] { SafetensorsFile::open(put_raw(std::string("\x05\0\0\0\0\0\0\0{}", 10))); }),
            "the header should have 5 bytes, but only 2 follow");
}

TEST_F(SafetensorsTest, AHostileNameStaysOnOneShortLine) {
  const std::string fault = open_fault(fmt::format(R"({{"{}\n\u001b":{{}}}})", std::string(1'000'000, 'x')));
  EXPECT_LT(fault.size(), 200u);
}

TEST_F(SafetensorsTest, LargeHeadersCostLittleTime) {
  std::string many = "{";
  while (many.size() < 20'000'000) many += fmt::format("\"{}\":{{}},", many.size());
  for (const std::string& header :
       {fmt::format("{{\"{}\":1}}", std::string(25'000'000, 'x')), fmt::format("{{{}", std::string(25'000'000, ' ')), many}) {
    put(header);
    const std::clock_t start = std::clock();  // processor time: other programs do not count
    EXPECT_THROW(SafetensorsFile::open(path_), InputError);
    const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    RecordProperty("seconds", std::to_string(seconds));
#if !defined(__SANITIZE_ADDRESS__)
    EXPECT_LT(seconds, 2.0);
#endif
  }
}

TEST_F(SafetensorsTest, DamageIsRefusedOrHarmless) {
  std::vector<float> values(50, 1.5f);
  write_safetensors(path_, {{"weight", tensor<float>({5, 10}, values)}, {"bias", tensor<float>({1}, {2})}}, {{"k", "v"}});
  const std::string whole = read_file(path_, 1 << 20);
  for (size_t length = 0; length < whole.size(); ++length) {
    put_raw(whole.substr(0, length));
    EXPECT_NE(fault_of([&] { SafetensorsFile::open(path_); }), "accepted") << "cut at " << length;
  }
  const RngKey key{11};
  for (uint64_t i = 0; i < 500; ++i) {
    std::string bytes = whole;
    for (uint64_t k = 0; k <= uniform_int(key.fold(1), i, 3); ++k)
      bytes[uniform_int(key.fold(2 + k), i, bytes.size())] = static_cast<char>(philox(key.fold(10 + k), i).x[0]);
    put_raw(bytes);
    fault_of([&] {  // an InputError or success: anything else ends the test
      const auto file = SafetensorsFile::open(path_);
      for (const auto& [name, stored] : file.tensors())
        if (stored.type == StoredType::f32) file.load(name, allocator_, DType::bf16);
    });
  }
}

TEST_F(SafetensorsTest, AFileThatShrinksAfterOpeningIsRefused) {
  write_safetensors(path_, {{"w", tensor<float>({1000}, std::vector<float>(1000, 1.0f))}});
  const auto file = SafetensorsFile::open(path_);
  ASSERT_EQ(::truncate(path_.c_str(), 2000), 0);
  EXPECT_EQ(fault_of([&] { file.load("w", allocator_, DType::f64); }).substr(0, 21), "ends after 2000 bytes");
}

TEST_F(SafetensorsTest, WriterRefusesMistakesAndLeavesNoPart) {
  const Tensor one = tensor<float>({1}, {1});
  EXPECT_THROW(write_safetensors(path_, {{"a", one}, {"a", one}}), Error);
  EXPECT_THROW(write_safetensors(path_, {{"__metadata__", one}}), Error);
  EXPECT_THROW(write_safetensors(path_, {{"a", Tensor()}}), Error);
  EXPECT_FALSE(std::filesystem::exists(path_));
  EXPECT_THROW(write_safetensors(scratch_.file("no/folder"), {{"a", one}}), InputError);
}

}  // namespace
}  // namespace ermoe::testing
