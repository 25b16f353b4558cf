// The safetensors and JSON files of the corpus of corrupt inputs, against what its manifest expects.
#include "core/json.h"
#include "core/safetensors.h"
#include "data/tar.h"
#include "tests/data/test_data.h"
#include "tests/scratch.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <ctime>
#include <functional>
#include <set>
#include <sstream>

namespace ermoe::testing {
namespace {

/// Opens a file and reads every tensor in it.
void read_safetensors(const std::string& path) {
  CachingAllocator allocator(make_host_source());
  const auto file = SafetensorsFile::open(path);
  for (const auto& [name, stored] : file.tensors()) {
    const bool whole_numbers = stored.type == StoredType::i64 || stored.type == StoredType::i32 || stored.type == StoredType::u8;
    file.load(name, allocator, whole_numbers ? DType::i64 : DType::f32);
  }
}

/// True where `read` takes the file; a refusal is one short line that names it, and anything else thrown fails the test.
bool accepts(const std::function<void(const std::string&)>& read, const std::string& path) {
  try {
    read(path);
    return true;
  } catch (const InputError& e) {
    const std::string what = e.what();
    EXPECT_EQ(what.substr(0, path.size()), path);
    EXPECT_LT(what.size(), path.size() + 200);
    for (const char c : what) EXPECT_TRUE(c >= ' ' && c <= '~') << what;
    return false;
  }
}

/// Reads every file of one folder of the corpus; returns how many there were. `stricter` names files that we refuse on purpose.
int read_folder(const TarReader& tar, const std::string& folder, const std::function<void(const std::string&)>& read,
                const std::set<std::string>& stricter) {
  const ScratchFolder scratch;
  std::istringstream manifest(tar.read(*tar.find("manifest.tsv")));
  int seen = 0;
  for (std::string line; std::getline(manifest, line);) {
    std::istringstream row(line);
    std::string name, bytes, source, licence, expect;
    for (std::string* cell : {&name, &bytes, &source, &licence, &expect}) std::getline(row, *cell, '\t');
    if (!name.starts_with(folder + "/")) continue;
    ++seen;
    const TarEntry* entry = tar.find(name);
    EXPECT_NE(entry, nullptr) << name;
    if (entry == nullptr) continue;
    const std::string path = scratch.file(folder);
    {
      FileWriter file(path);
      file.write(tar.read(*entry));
    }
    const std::clock_t start = std::clock();
    const bool accepted = accepts(read, path);
    EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, 2.0) << line;
    if (stricter.contains(name)) {
      EXPECT_FALSE(accepted) << line;
    } else if (expect != "any") {
      EXPECT_EQ(accepted, expect == "accept") << line;
    }
  }
  return seen;
}

TEST(CorruptSafetensors, IsRefusedAndTheRestIsRead) {
  ERMOE_REQUIRE_TEST_DATA(path, "corrupt_inputs.tar");
  EXPECT_GE(read_folder(TarReader(path), "safetensors", read_safetensors, {}), 30);
}

TEST(CorruptJson, IsRefusedAndTheRestIsRead) {
  ERMOE_REQUIRE_TEST_DATA(path, "corrupt_inputs.tar");
  const auto read = [](const std::string& file) { read_json(file); };
  // Which of two equal keys counts is not defined; a setting given twice is a mistake.
  const std::set<std::string> stricter{"json/y_object_duplicated_key.json", "json/y_object_duplicated_key_and_value.json"};
  EXPECT_GE(read_folder(TarReader(path), "json", read, stricter), 200);
}

}  // namespace
}  // namespace ermoe::testing
