// Signals note that they came, the second SIGINT ends the program; exceptions become one line and an exit code.
#include "tools/signals.h"

#include "core/error.h"
#include "tools/main_guard.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <new>

namespace ermoe {
namespace {

TEST(StopSignals, NotesTheFirstAndKeepsIt) {
  for (const auto& [signal, name] : {std::pair{SIGINT, "SIGINT"}, {SIGTERM, "SIGTERM"}, {SIGUSR1, "SIGUSR1"}}) {
    StopSignals signals;
    EXPECT_FALSE(signals.requested());
    EXPECT_EQ(name_of_signal(signals.received()), "");
    ::raise(signal);
    EXPECT_EQ(signals.received(), signal);
    ::raise(SIGTERM);
    EXPECT_EQ(name_of_signal(signals.received()), name);
  }
}

TEST(StopSignals, GivesTheHandlersBack) {
  struct sigaction ours {
  }, after{};
  ours.sa_handler = SIG_IGN;
  ::sigaction(SIGUSR1, &ours, nullptr);
  { StopSignals signals; }
  ::sigaction(SIGUSR1, nullptr, &after);
  EXPECT_EQ(after.sa_handler, SIG_IGN);
  ::signal(SIGUSR1, SIG_DFL);
}

TEST(StopSignals, ThereIsOneAtATime) {
  StopSignals first;
  EXPECT_THROW(StopSignals{}, Error);
  ::raise(SIGTERM);
  EXPECT_TRUE(first.requested());
}

TEST(StopSignalsDeathTest, TheSecondInterruptEndsTheProgram) {
  EXPECT_EXIT(
      {
        StopSignals signals;
        ::raise(SIGINT);
        ::raise(SIGINT);
        ::_exit(0);
      },
      ::testing::ExitedWithCode(130), "");
  EXPECT_EXIT(
      {
        StopSignals signals;
        ::raise(SIGTERM);
        ::raise(SIGINT);
        ::_exit(0);
      },
      ::testing::ExitedWithCode(130), "");
}

TEST(GuardMain, TurnsExceptionsIntoOneLineAndACode) {
  const auto run = [](const std::function<int()>& body) {
    ::testing::internal::CaptureStderr();
    const int code = guard_main("ermoe-train", body);
    return std::pair{code, ::testing::internal::GetCapturedStderr()};
  };
  EXPECT_EQ(run([] { return 7; }), (std::pair{7, std::string()}));
  EXPECT_EQ(run([]() -> int { fail_input("x.json: bad\nvery bad"); }), (std::pair{2, std::string("ermoe-train: x.json: bad very bad\n")}));
  EXPECT_EQ(run([]() -> int { fail("broken"); }), (std::pair{1, std::string("ermoe-train: broken\n")}));
  EXPECT_EQ(run([]() -> int { throw std::bad_alloc(); }), (std::pair{1, std::string("ermoe-train: out of memory\n")}));
  EXPECT_EQ(run([]() -> int { throw std::runtime_error("odd"); }), (std::pair{1, std::string("ermoe-train: odd\n")}));
  EXPECT_EQ(run([]() -> int { throw 5; }).first, 1);
}

}  // namespace
}  // namespace ermoe
