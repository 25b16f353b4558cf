// Tensors in pieces, of one rank: the same bytes whatever the pieces, every conversion, what is refused and how, a disk that is full.
// Several ranks: tests/ranks/slices.cpp.
#include "core/saved_slice.h"

#include "core/flat.h"
#include "core/rng.h"
#include "tests/scratch.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

namespace ermoe::testing {
namespace {

template <typename Fn>
std::string fault_of(Fn&& fn) {
  try {
    fn();
  } catch (const Error& e) {
    EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos);
    return e.what();
  }
  return "accepted";
}

class SavedSlices : public ::testing::Test {
 protected:
  Tensor random(const Shape& shape, DType dtype, uint64_t seed) {
    const Tensor t = Tensor::empty(memory_, shape, DType::f32), converted = Tensor::empty(memory_, shape, dtype);
    for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = static_cast<float>(normal(RngKey{seed}, static_cast<uint64_t>(i)));
    convert(t, converted);
    return converted;
  }
  uint32_t write(const std::vector<SavedSlice>& slices, const SafetensorsFile::Metadata& metadata = {}) {
    return write_slices(path_, slices, alone_, metadata);
  }
  std::string write_fault(const std::vector<SavedSlice>& slices) {
    return fault_of([&] { write(slices); });
  }
  std::string read_fault(const std::vector<SavedSlice>& slices, Unlisted unlisted = Unlisted::refused) {
    return fault_of([&] { read_slices(SafetensorsFile::open(path_), slices, unlisted); });
  }
  SavedSlice piece(const Tensor& whole, int64_t begin, int64_t end, const std::string& name = "w") {
    return {.name = name, .whole = whole.shape(), .first = begin, .part = whole.window(begin, {end - begin})};
  }

  CachingAllocator memory_{make_host_source(), Fill::poison};
  SelfCommunicator alone_;
  ScratchFolder scratch_;
  std::string path_ = scratch_.file("t.safetensors");
};

TEST_F(SavedSlices, PiecesInAnyOrderMakeTheSameFile) {
  const Tensor w = random({4, 5, 3}, DType::f32, 1), b = random({7}, DType::f32, 2), none = random({0, 3}, DType::f32, 3);
  const SafetensorsFile::Metadata metadata{{"format", "ermoe"}};
  write_safetensors(path_, {{"w", w}, {"none", none}, {"b", b}}, metadata);
  const std::string expected = read_file(path_, 1 << 20);
  std::filesystem::remove(path_);
  std::vector<SavedSlice> slices{
      piece(w, 31, 60), {.name = "none", .whole = {0, 3}}, piece(b, 6, 7, "b"), piece(w, 0, 15), piece(b, 0, 6, "b"), piece(w, 15, 15),
      piece(w, 15, 31)};
  slices.push_back({.name = "w", .whole = w.shape(), .first = 0, .part = w, .writes = false});  // for reading only
  const uint32_t crc = write(slices, metadata);
  EXPECT_EQ(read_file(path_, 1 << 20), expected);
  EXPECT_EQ(crc, file_crc32(path_));
}

TEST_F(SavedSlices, ALargeTensorIsWrittenInChunks) {
  const Tensor w = random({5, 1 << 20}, DType::f32, 1);  // 20 MiB, above one chunk
  const uint32_t crc = write({piece(w, 0, 5), piece(w, 5, w.numel())});
  EXPECT_EQ(crc, file_crc32(path_));
  const Tensor got = SafetensorsFile::open(path_).load("w", memory_, DType::f32);
  EXPECT_EQ(std::memcmp(got.raw(), w.raw(), w.bytes()), 0);
}

TEST_F(SavedSlices, PiecesComeBackFromOthers) {
  const Tensor w = random({6, 4}, DType::f32, 1), got = Tensor::empty(memory_, {24}, DType::f32);
  write({piece(w, 0, 5), piece(w, 5, 24)});
  read_slices(SafetensorsFile::open(path_),
              std::vector<SavedSlice>{{.name = "w", .whole = {6, 4}, .first = 8, .part = got.window(8, {4, 2, 2})},
                                      {.name = "w", .whole = {6, 4}},
                                      {.name = "w", .whole = {6, 4}, .first = 0, .part = got.window(0, {2, 4}), .writes = false}},
              Unlisted::refused);
  EXPECT_EQ(std::memcmp(got.raw(), w.raw(), w.bytes()), 0);
}

TEST_F(SavedSlices, ConvertBothWays) {
  for (const DType held : {DType::f32, DType::f64, DType::bf16}) {
    for (const DType stored : {DType::f32, DType::f64, DType::bf16}) {
      const Tensor w = random({100}, held, 4), expected = Tensor::empty(memory_, {100}, stored);
      convert(w, expected);
      SavedSlice first = piece(w, 0, 33), second = piece(w, 33, 100);
      first.stored = second.stored = stored;
      const uint32_t crc = write({first, second});
      EXPECT_EQ(crc, file_crc32(path_));
      const auto file = SafetensorsFile::open(path_);
      const Tensor got = file.load("w", memory_, stored);
      EXPECT_EQ(file.at("w").bytes, expected.bytes());
      EXPECT_EQ(std::memcmp(got.raw(), expected.raw(), expected.bytes()), 0) << name_of(held) << " as " << name_of(stored);
      const Tensor back = Tensor::zeros(memory_, {100}, DType::f64);
      read_slices(file, std::vector<SavedSlice>{{.name = "w", .whole = {100}, .first = 50, .part = back.window(50, {50})}},
                  Unlisted::refused);
      const Tensor wide = file.load("w", memory_, DType::f64);
      EXPECT_EQ(std::memcmp(back.raw() + 400, wide.raw() + 400, 400), 0);
    }
  }
}

TEST_F(SavedSlices, HolesAndOverlapsAreRefusedBeforeAnythingIsWritten) {
  const Tensor w = random({4, 5}, DType::f32, 1), b = random({7}, DType::f32, 2);
  const std::string w_names = path_ + ": w (4, 5): element ", b_names = path_ + ": b (7): element ";
  EXPECT_EQ(write_fault({piece(w, 0, 10), piece(w, 11, 20)}), w_names + "10, in row 2 of 4, is written by no rank");
  EXPECT_EQ(write_fault({piece(w, 1, 20)}), w_names + "0, in row 0 of 4, is written by no rank");
  EXPECT_EQ(write_fault({piece(w, 0, 19)}), w_names + "19, in row 3 of 4, is written by no rank");
  EXPECT_EQ(write_fault({piece(w, 0, 11), piece(w, 10, 20)}), w_names + "10, in row 2 of 4, is written by rank 0 and by rank 0");
  EXPECT_EQ(write_fault({piece(w, 0, 20), piece(w, 3, 4)}), w_names + "3, in row 0 of 4, is written by rank 0 and by rank 0");
  EXPECT_EQ(write_fault({piece(w, 0, 20), piece(b, 0, 6, "b")}), b_names + "6 is written by no rank");
  EXPECT_EQ(write_fault({{.name = "b", .whole = {7}}, piece(w, 0, 20)}), b_names + "0 is written by no rank");
  EXPECT_EQ(write_fault({{.name = "b", .whole = {7}, .first = 0, .part = b, .writes = false}}), b_names + "0 is written by no rank");
  EXPECT_EQ(write_fault({piece(w, 0, 20), {.name = "w", .whole = {5, 4}}}), path_ + ": w is listed as f32 (4, 5) and as f32 (5, 4)");
  EXPECT_EQ(write_fault({{.name = "w", .whole = {5}, .first = 2, .part = b.window(0, {4})}}), path_ + ": w (5) has no elements 2 to 6");
  EXPECT_EQ(write_fault({{.name = "w", .whole = {5}, .first = -1, .part = b.window(0, {4})}}), path_ + ": w (5) has no elements -1 to 3");
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(SavedSlices, AFileThatDoesNotFitIsRefusedAndChangesNothing) {
  const Tensor w = random({4, 5}, DType::f32, 1), b = random({7}, DType::f32, 2);
  write({piece(w, 0, 20), piece(b, 0, 7, "b")});
  const Tensor to = Tensor::zeros(memory_, {27}, DType::f32);
  const SavedSlice whole_w{.name = "w", .whole = {4, 5}, .part = to.window(0, {20})};
  const SavedSlice whole_b{.name = "b", .whole = {7}, .part = to.window(20, {7})};
  EXPECT_EQ(read_fault({whole_w, whole_b, {.name = "c", .whole = {1}}}), path_ + ": c is missing");
  EXPECT_EQ(read_fault({whole_b, {.name = "w", .whole = {5, 4}}}), path_ + ": w is (4, 5) but the model has (5, 4)");
  EXPECT_EQ(read_fault({whole_b}), path_ + ": w is not in the model");
  for (const float value : to.span<float>()) EXPECT_EQ(value, 0);
  EXPECT_EQ(read_fault({whole_b}, Unlisted::ignored), "accepted");
  EXPECT_EQ(std::memcmp(to.raw() + 80, b.raw(), b.bytes()), 0);
}

TEST_F(SavedSlices, AFileThatCannotBeWrittenIsNoFile) {
  const Tensor w = random({4, 5000}, DType::f32, 1);
  {
    const FileSizeLimit limit(40'000);
    EXPECT_EQ(write_fault({piece(w, 0, 20'000)}).find(path_ + ": cannot be made 80"), 0u);
  }
  EXPECT_FALSE(std::filesystem::exists(path_));
  path_ = scratch_.file("no/folder");
  EXPECT_THROW(write({piece(w, 0, 20'000)}), InputError);
}

}  // namespace
}  // namespace ermoe::testing
