// Files: what is refused, atomic replacement, and faults of the disk.
#include "core/file_io.h"

#include "core/error.h"
#include "tests/scratch.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

namespace ermoe::testing {
namespace {

namespace fs = std::filesystem;

void put(const std::string& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

template <typename E, typename Fn>
std::string fault_of(Fn&& fn) {
  try {
    fn();
  } catch (const E& e) {
    return e.what();
  }
  return "accepted";
}

TEST(FileIo, ReadsWhatWasWritten) {
  const ScratchFolder scratch;
  const std::string path = scratch.file("a");
  for (const size_t size : {size_t{0}, size_t{1}, size_t{1} << 20, (size_t{3} << 20) + 7}) {
    std::string bytes(size, '\0');
    for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i * 31 % 251);
    write_file(path, bytes);
    EXPECT_EQ(read_file(path, size), bytes);
    if (size == 0) continue;
    EXPECT_THROW(read_file(path, size - 1), InputError);
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(scratch.path()), fs::directory_iterator()), 1) << "something was left beside the file";
  EXPECT_FALSE(read_file("/proc/self/status", 1 << 20).empty()) << "a file that says it has 0 bytes";
}

TEST(FileIo, RefusesWhatIsNoFile) {
  const ScratchFolder scratch;
  ASSERT_EQ(::mkfifo(scratch.file("pipe").c_str(), 0600), 0);
  for (const auto& path : {scratch.file("missing"), scratch.file("pipe"), scratch.path(), std::string("/dev/zero"), std::string()}) {
    const std::string fault = fault_of<InputError>([&] { read_file(path, 1 << 20); });
    EXPECT_EQ(fault.substr(0, path.size() + 2), path + ": ");
  }
}

TEST(FileIo, ReaderNamesTheMissingBytes) {
  const ScratchFolder scratch;
  const std::string path = scratch.file("a");
  put(path, "0123456789");
  const FileReader file(path);
  char got[4] = {};
  file.read(6, got, 4);
  EXPECT_EQ(std::string(got, 4), "6789");
  EXPECT_EQ(fault_of<InputError>([&] { file.read(7, got, 4); }), path + ": ends after 10 bytes where 11 are needed");
  EXPECT_THROW(file.read(uint64_t{1} << 63, got, 4), InputError);
}

TEST(FileIo, ChecksumIsCrc32) {
  const ScratchFolder scratch;
  put(scratch.file("a"), "123456789");
  EXPECT_EQ(file_crc32(scratch.file("a")), 0xcbf43926u);  // the check value that defines CRC-32/ISO-HDLC
  put(scratch.file("empty"), "");
  EXPECT_EQ(file_crc32(scratch.file("empty")), 0u);
  std::string large((size_t{2} << 20) + 5, 'x');
  put(scratch.file("large"), large);
  const uint32_t before = file_crc32(scratch.file("large"));
  large[(size_t{1} << 20) + 1] ^= 1;
  put(scratch.file("large"), large);
  EXPECT_NE(file_crc32(scratch.file("large")), before);
}

TEST(FileIo, FullDiskIsNamed) {
  FileWriter full("/dev/full");
  EXPECT_EQ(fault_of<Error>([&] { full.write("abc"); }), "/dev/full: cannot be written beyond 0 bytes: No space left on device");
}

TEST(FileIo, AFailedWriteLeavesTheOldFile) {
  const ScratchFolder scratch;
  const std::string path = scratch.file("a");
  write_file(path, "old");
  {
    const FileSizeLimit limit(1000);
    const std::string fault = fault_of<Error>([&] { write_file(path, std::string(5000, 'x')); });
    EXPECT_NE(fault.find(path), std::string::npos) << fault;
    EXPECT_NE(fault.find("beyond 1000 bytes: File too large"), std::string::npos) << fault;
  }
  EXPECT_EQ(read_file(path, 100), "old");
  EXPECT_EQ(std::distance(fs::directory_iterator(scratch.path()), fs::directory_iterator()), 1) << "the partial file was left";
  EXPECT_THROW(write_file(scratch.file("no/such/folder/a"), "x"), InputError);
  EXPECT_THROW(rename_path(scratch.file("missing"), scratch.file("b")), Error);
  EXPECT_THROW(sync_path(scratch.file("missing")), Error);
}

TEST(FileIo, PrintableIsOneShortLine) {
  EXPECT_EQ(printable("a b~"), "a b~");
  EXPECT_EQ(printable("a\nb\x1b[31m\xff"), "a\\x0ab\\x1b[31m\\xff");
  const std::string longest = printable(std::string(1'000'000, '\n'));
  EXPECT_LE(longest.size(), 90u);
  EXPECT_TRUE(longest.ends_with("..."));
}

}  // namespace
}  // namespace ermoe::testing
