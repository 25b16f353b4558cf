// Where tests find external data: the folder in ERMOE_TEST_DATA.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

namespace ermoe::testing {

/// The path of a file of the test data, or an empty one where it is not there.
inline std::string test_data(const std::string& name) {
  const char* folder = std::getenv("ERMOE_TEST_DATA");
  if (folder == nullptr) return {};
  const std::string path = std::string(folder) + "/" + name;
  return std::filesystem::exists(path) ? path : std::string();
}

}  // namespace ermoe::testing

/// Skips the test, saying why, where the file is absent; otherwise defines `path`.
#define ERMOE_REQUIRE_TEST_DATA(path, name)                   \
  const std::string path = ::ermoe::testing::test_data(name); \
  if (path.empty()) GTEST_SKIP() << "needs " << (name) << " in the folder that ERMOE_TEST_DATA names"
