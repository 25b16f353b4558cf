// Every safetensors file of the corpus of corrupt inputs, against what its manifest expects.
#include "core/safetensors.h"
#include "tests/scratch.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <ctime>
#include <fstream>
#include <sstream>

namespace ermoe::testing {
namespace {

/// Opens a file and reads every tensor in it. True where nothing was refused.
bool accepts(const std::string& path) {
  CachingAllocator allocator(make_host_source());
  try {
    const auto file = SafetensorsFile::open(path);
    for (const auto& [name, stored] : file.tensors()) {
      const bool whole_numbers = stored.type == StoredType::i64 || stored.type == StoredType::i32 || stored.type == StoredType::u8;
      file.load(name, allocator, whole_numbers ? DType::i64 : DType::f32);
    }
    return true;
  } catch (const InputError& e) {
    const std::string what = e.what();
    EXPECT_EQ(what.substr(0, path.size()), path);
    EXPECT_LT(what.size(), path.size() + 200);
    EXPECT_EQ(what.find('\n'), std::string::npos) << what;
    return false;
  }
}

TEST(CorruptSafetensors, IsRefusedAndTheRestIsRead) {
  const char* folder = std::getenv("ERMOE_TEST_DATA");
  if (folder == nullptr) GTEST_SKIP() << "ERMOE_TEST_DATA names no folder with corrupt_inputs.tar";
  const std::string archive = std::string(folder) + "/corrupt_inputs.tar";
  if (!std::filesystem::exists(archive)) GTEST_SKIP() << archive << " is not there";
  const ScratchFolder scratch;
  const std::string unpack = "tar xf '" + archive + "' -C '" + scratch.path() + "' manifest.tsv safetensors";
  ASSERT_EQ(std::system(unpack.c_str()), 0) << unpack;
  std::ifstream manifest(scratch.file("manifest.tsv"));
  int seen = 0;
  for (std::string line; std::getline(manifest, line);) {
    std::istringstream fields(line);
    std::string path, bytes, source, licence, expect;
    for (std::string* field : {&path, &bytes, &source, &licence, &expect}) std::getline(fields, *field, '\t');
    if (!path.starts_with("safetensors/")) continue;
    ++seen;
    const std::clock_t start = std::clock();
    const bool accepted = accepts(scratch.file(path));
    EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, 2.0) << path;
    if (expect != "any") {
      EXPECT_EQ(accepted, expect == "accept") << path << ": " << line;
    }
  }
  EXPECT_GE(seen, 30);
}

}  // namespace
}  // namespace ermoe::testing
