// What a person reads while a run is on its way, on a terminal and in a log file.
#include "tools/progress.h"

#include <gtest/gtest.h>

namespace ermoe {
namespace {

ProgressState full_state() {
  ProgressState s;
  s.step = 120;
  s.steps = 9000;
  s.epoch = 3;
  s.epochs = 10;
  s.loss = 5.43214;
  s.gradient_norm = 1.234;
  s.lr = 3e-4;
  s.step_ms = 182.4;
  s.images_per_s = 11234;
  s.mfu = 0.381;
  s.load_max_mean = 1.311;
  s.gini = 0.0712;
  s.memory_bytes = static_cast<int64_t>(41.2 * (1 << 30));
  s.seconds_left = 3723;
  return s;
}

std::string shown(ProgressStyle style, const std::function<void(Progress&, double&)>& use) {
  char* text = nullptr;
  size_t size = 0;
  std::FILE* out = ::open_memstream(&text, &size);
  double clock = 0;
  {
    Progress progress(out, style, [&] { return clock; });
    use(progress, clock);
  }
  std::fclose(out);
  std::string result(text, size);
  std::free(text);
  return result;
}

TEST(Progress, PlainLine) {
  EXPECT_EQ(
      plain_line(full_state()),
      "step 120/9000 | loss 5.4321 | gnorm 1.23 | lr 3.0e-04 | 182 ms | 11.2k img/s | mfu 38.1% | load 1.31 | gini 0.07 | mem 41.2 GiB");
  ProgressState bare;
  bare.step = 1;
  bare.steps = 2;
  EXPECT_EQ(plain_line(bare), "step 1/2");
}

TEST(Progress, TerminalLine) {
  EXPECT_EQ(terminal_line(full_state(), 200), "epoch 3/10   1% | loss 5.4321 | lr 3.0e-04 | 11.2k img/s | ETA 1:02:03 | load 1.31");
  EXPECT_EQ(terminal_line(full_state(), 20).size(), 20u);
}

TEST(Progress, TellsOfWaitingForData) {
  ProgressState s;
  s.step = 1;
  s.steps = 2;
  s.data_wait_share = 0.124;
  EXPECT_EQ(plain_line(s), "step 1/2 | data wait 12%");
  EXPECT_EQ(terminal_line(s, 80), "step 1/2  50% | data wait 12%");
}

TEST(Progress, NamesTheSlowestRankAndTheMostLoadedExpertWhereTheyStandOut) {
  ProgressState s;
  s.step = 1;
  s.steps = 2;
  s.load_max_mean = 1.99;
  s.loaded_block = "text_block1";
  s.loaded_expert = 5;
  s.slowest_rank = 3;
  s.slowest_over_mean = 1.1;
  EXPECT_EQ(plain_line(s), "step 1/2 | load 1.99");
  EXPECT_EQ(terminal_line(s, 80), "step 1/2  50% | load 1.99");
  s.load_max_mean = 2.622;
  s.slowest_over_mean = 1.224;
  EXPECT_EQ(plain_line(s), "step 1/2 | rank 3 +22 % | load 2.62 (text_block1, expert 5)");
  EXPECT_EQ(terminal_line(s, 80), "step 1/2  50% | rank 3 +22 % | load 2.62 (text_block1, expert 5)");
}

TEST(Progress, DurationsAndRates) {
  EXPECT_EQ(duration_text(0), "0:00");
  EXPECT_EQ(duration_text(59.6), "1:00");
  EXPECT_EQ(duration_text(3599), "59:59");
  EXPECT_EQ(duration_text(90061), "1d 1:01:01");
  EXPECT_EQ(duration_text(-1), "?");
  EXPECT_EQ(duration_text(1e300), "?");
  EXPECT_EQ(rate_text(3.14159), "3.14");
  EXPECT_EQ(rate_text(853.2), "853");
  EXPECT_EQ(rate_text(11200), "11.2k");
  EXPECT_EQ(rate_text(999.7), "1.0k");
  EXPECT_EQ(rate_text(2.4e6), "2.4M");
}

TEST(Progress, LogsGetOneLineAnUpdate) {
  const std::string text = shown(ProgressStyle::plain, [](Progress& progress, double&) {
    EXPECT_FALSE(progress.live());
    progress.update({.step = 1, .steps = 2});
    progress.message("saved");
    progress.update({.step = 2, .steps = 2});
  });
  EXPECT_EQ(text, "step 1/2\nsaved\nstep 2/2\n");
}

TEST(Progress, TerminalLineOverwritesItselfAndEstimatesTheTimeLeft) {
  const std::string text = shown(ProgressStyle::terminal, [](Progress& progress, double& clock) {
    progress.update({.step = 0, .steps = 100});
    clock = 0.05;  // too soon to draw again
    progress.update({.step = 1, .steps = 100});
    clock = 10;
    progress.update({.step = 20, .steps = 100});
    progress.message("saved");
    clock = 10.01;  // the last step is always drawn
    progress.update({.step = 100, .steps = 100});
  });
  EXPECT_EQ(text,
            "\rstep 0/100   0%\x1b[K"
            "\rstep 20/100  20% | ETA 0:40\x1b[K"
            "\r\x1b[Ksaved\n\rstep 20/100  20% | ETA 0:40\x1b[K"
            "\rstep 100/100 100% | ETA 0:00\x1b[K\n");
}

}  // namespace
}  // namespace ermoe
