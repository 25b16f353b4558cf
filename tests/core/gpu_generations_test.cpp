// Which compute capabilities the code of a list of generations runs on.
#include "core/gpu_generations.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace ermoe::testing {
namespace {

struct Case {
  std::string generations;
  std::vector<std::pair<int, int>> runs, fails;
};

TEST(GpuGenerations, RunWhereTheirCodeDoes) {
  const std::vector<Case> cases = {
      {"80,90a", {{8, 0}, {8, 6}, {8, 9}, {9, 0}, {10, 0}, {12, 1}}, {{7, 0}, {7, 5}, {6, 1}}},
      {"80", {{8, 0}, {9, 0}, {12, 0}}, {{7, 5}}},
      {"90a", {{9, 0}}, {{8, 9}, {9, 1}, {10, 0}}},
      {"86,90", {{8, 6}, {8, 9}, {9, 0}}, {{8, 0}, {10, 0}}},
      {"100f,120", {{10, 0}, {10, 3}, {12, 0}, {12, 1}}, {{11, 0}, {9, 0}}},
      {"103f", {{10, 3}}, {{10, 0}}},
      {"", {}, {{8, 0}}},
      {",,a,native,8,80x,80;90a", {}, {{8, 0}, {0, 8}, {9, 0}}},
  };
  for (const Case& c : cases) {
    for (const auto& [major, minor] : c.runs) EXPECT_TRUE(runs_on(c.generations, major, minor)) << c.generations << ' ' << major << minor;
    for (const auto& [major, minor] : c.fails) EXPECT_FALSE(runs_on(c.generations, major, minor)) << c.generations << ' ' << major << minor;
  }
}

TEST(GpuGenerations, AreNamedInFull) {
  EXPECT_TRUE(names_generation("80,90a", "90a"));
  EXPECT_TRUE(names_generation("90a", "90a"));
  EXPECT_FALSE(names_generation("80,90", "90a"));
  EXPECT_FALSE(names_generation("80,90a", "90"));
  EXPECT_FALSE(names_generation("", "80"));
}

}  // namespace
}  // namespace ermoe::testing
