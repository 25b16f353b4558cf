// The logger: who speaks, and how often.
#include "core/log.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <thread>
#include <vector>

namespace ermoe::testing {
namespace {

/// What `fn` makes a logger of this rank print.
template <typename Fn>
std::string printed(int rank, Fn&& fn) {
  std::FILE* file = std::tmpfile();
  Logger log(rank, file);
  fn(log);
  std::string text(static_cast<size_t>(std::ftell(file)), '\0');
  std::rewind(file);
  EXPECT_EQ(std::fread(text.data(), 1, text.size(), file), text.size());
  std::fclose(file);
  return text;
}

TEST(Log, RankZeroInformsAndEveryRankWarns) {
  const auto speak = [](Logger& log) {
    log.info("step {}", 3);
    log.warning("{} is slow", "disk");
  };
  EXPECT_EQ(printed(0, speak), "step 3\nwarning: disk is slow\n");
  EXPECT_EQ(printed(2, speak), "warning: rank 2: disk is slow\n");
}

TEST(Log, AWarningIsPrintedOnce) {
  const auto speak = [](Logger& log) {
    for (int i = 0; i < 5; ++i) log.warning("file {}", i % 2);
    for (int i = 0; i < 2; ++i) log.info("twice");
  };
  EXPECT_EQ(printed(0, speak), "warning: file 0\nwarning: file 1\ntwice\ntwice\n");
}

TEST(Log, WarningsEnd) {
  const std::string text = printed(0, [](Logger& log) {
    for (int i = 0; i < 10'000; ++i) log.warning("file {}", i);
  });
  EXPECT_EQ(std::ranges::count(text, '\n'), static_cast<std::ptrdiff_t>(Logger::max_warnings + 1));
  EXPECT_TRUE(text.ends_with("warning: more than 100 different warnings; the rest is not shown\n"));
}

TEST(Log, LinesOfThreadsStayWhole) {
  const std::string text = printed(0, [](Logger& log) {
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t)
      threads.emplace_back([&log] {
        for (int i = 0; i < 200; ++i) log.info("{}", "0123456789");
      });
    for (std::thread& thread : threads) thread.join();
  });
  std::string expected;
  for (int i = 0; i < 800; ++i) expected += "0123456789\n";
  EXPECT_EQ(text, expected);
}

}  // namespace
}  // namespace ermoe::testing
