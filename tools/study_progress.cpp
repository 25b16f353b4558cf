#include "tools/study_progress.h"

#include "tools/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

namespace ermoe {
namespace {

constexpr double live_seconds = 1, plain_seconds = 60;
constexpr double least_work = 0.02;  // of a run, from which on a guess is worth something
constexpr size_t most_columns = 120;

}  // namespace

std::optional<double> seconds_left(double seconds, double work, double total) {
  if (work < least_work) return std::nullopt;
  return seconds * std::max(0.0, total - work) / work;
}

std::string study_line(int64_t done, int64_t runs, const std::vector<RunningShare>& running, std::optional<double> left) {
  std::string line = fmt::format("{} of {} runs done", done, runs);
  for (const RunningShare& run : running) line += fmt::format("; {} {:.0f} %", run.name, 100 * run.share);
  return line + (left ? fmt::format("; about {} left", duration_text(*left)) : "");
}

StudyProgress::StudyProgress(std::FILE* out, int64_t runs, int64_t done, double work, std::function<double()> now)
    : out_(out), live_(::isatty(::fileno(out)) == 1), runs_(runs), done_(done), work_(work), now_(std::move(now)) {
  start_ = shown_ = now_();
}

void StudyProgress::clear() {
  if (drawn_) std::fputs("\r\x1b[K", out_);
  drawn_ = false;
}

void StudyProgress::say(const std::string& line) {
  clear();
  std::fprintf(out_, "%s\n", line.c_str());
  std::fflush(out_);
}

void StudyProgress::finished(double work) {
  ++done_;
  worked_ += work;
}

void StudyProgress::show(const std::function<std::vector<RunningShare>()>& running) {
  if (now_() - shown_ < (live_ ? live_seconds : plain_seconds)) return;
  shown_ = now_();
  const std::vector<RunningShare> on_their_way = running();
  double worked = worked_;
  for (const RunningShare& run : on_their_way) worked += std::max(0.0, run.share - run.before);
  const std::string line = study_line(done_, runs_, on_their_way, seconds_left(shown_ - start_, worked, work_));
  clear();
  std::fprintf(out_, live_ ? "%s" : "%s\n", live_ ? line.substr(0, most_columns).c_str() : line.c_str());
  std::fflush(out_);
  drawn_ = live_;
}

void StudyProgress::end() {
  clear();
  std::fflush(out_);
}

}  // namespace ermoe
