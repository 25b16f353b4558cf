#include "tools/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <vector>

namespace ermoe {
namespace {

constexpr double kRedrawSeconds = 0.1;
constexpr double kToldLoad = 2;        // from here on the most loaded expert is named
constexpr double kToldSlowness = 1.1;  // above it the slowest rank is

std::string join(const std::vector<std::string>& fields) { return fmt::format("{}", fmt::join(fields, " | ")); }

std::string ms_text(double ms) { return ms < 10 ? fmt::format("{:.1f} ms", ms) : fmt::format("{:.0f} ms", ms); }

std::string wait_text(double share) { return fmt::format("data wait {:.0f}%", share * 100); }

/// "load 1.31", "load 2.62 (block3, expert 5)".
std::string load_text(const ProgressState& s) {
  const std::string load = fmt::format("load {:.2f}", *s.load_max_mean);
  return *s.load_max_mean < kToldLoad ? load : fmt::format("{} ({}, expert {})", load, s.loaded_block, s.loaded_expert);
}

bool tells_slowest(const ProgressState& s) { return s.slowest_rank && s.slowest_over_mean > kToldSlowness; }

std::string slowest_text(const ProgressState& s) {
  return fmt::format("rank {} {:+.0f} %", *s.slowest_rank, 100 * (s.slowest_over_mean - 1));
}

std::string memory_text(int64_t bytes) {
  const double mib = static_cast<double>(bytes) / (1 << 20);
  return mib < 1024 ? fmt::format("mem {:.0f} MiB", mib) : fmt::format("mem {:.1f} GiB", mib / 1024);
}

size_t width_of(std::FILE* out) {
  winsize size{};
  const bool known = ::ioctl(::fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return known ? size.ws_col : 80;
}

bool is_live(std::FILE* out, ProgressStyle style) {
  if (style != ProgressStyle::detect) return style == ProgressStyle::terminal;
  const char* term = std::getenv("TERM");
  return ::isatty(::fileno(out)) == 1 && term != nullptr && std::string_view(term) != "dumb";
}

}  // namespace

std::string duration_text(double seconds) {
  if (!(seconds >= 0) || seconds > 1e9) return "?";
  const auto total = static_cast<int64_t>(std::llround(seconds));
  const int64_t days = total / 86400, h = total / 3600 % 24, m = total / 60 % 60, s = total % 60;
  if (days > 0) return fmt::format("{}d {}:{:02}:{:02}", days, h, m, s);
  return h > 0 ? fmt::format("{}:{:02}:{:02}", h, m, s) : fmt::format("{}:{:02}", m, s);
}

std::string rate_text(double per_second) {
  if (!(per_second >= 0)) return "?";
  if (per_second < 9.995) return fmt::format("{:.2f}", per_second);
  if (per_second < 999.5) return fmt::format("{:.0f}", per_second);
  return per_second < 999950 ? fmt::format("{:.1f}k", per_second / 1e3) : fmt::format("{:.1f}M", per_second / 1e6);
}

std::string plain_line(const ProgressState& s) {
  std::vector<std::string> fields{fmt::format("step {}/{}", s.step, s.steps)};
  if (s.loss) fields.push_back(fmt::format("loss {:.4f}", *s.loss));
  if (s.gradient_norm) fields.push_back(fmt::format("gnorm {:.2f}", *s.gradient_norm));
  if (s.lr) fields.push_back(fmt::format("lr {:.1e}", *s.lr));
  if (s.step_ms) fields.push_back(ms_text(*s.step_ms));
  if (s.images_per_s) fields.push_back(rate_text(*s.images_per_s) + " img/s");
  if (s.data_wait_share) fields.push_back(wait_text(*s.data_wait_share));
  if (tells_slowest(s)) fields.push_back(slowest_text(s));
  if (s.mfu) fields.push_back(fmt::format("mfu {:.1f}%", *s.mfu * 100));
  if (s.load_max_mean) fields.push_back(load_text(s));
  if (s.gini) fields.push_back(fmt::format("gini {:.2f}", *s.gini));
  if (s.memory_bytes) fields.push_back(memory_text(*s.memory_bytes));
  return join(fields);
}

std::string terminal_line(const ProgressState& s, size_t width) {
  const int64_t percent = s.steps > 0 ? 100 * s.step / s.steps : 0;
  std::string place = s.epoch && s.epochs ? fmt::format("epoch {}/{} ", *s.epoch, *s.epochs) : fmt::format("step {}/{} ", s.step, s.steps);
  std::vector<std::string> fields{place + fmt::format("{:3}%", percent)};
  if (s.loss) fields.push_back(fmt::format("loss {:.4f}", *s.loss));
  if (s.lr) fields.push_back(fmt::format("lr {:.1e}", *s.lr));
  if (s.images_per_s) fields.push_back(rate_text(*s.images_per_s) + " img/s");
  if (s.data_wait_share) fields.push_back(wait_text(*s.data_wait_share));
  if (tells_slowest(s)) fields.push_back(slowest_text(s));
  if (s.seconds_left) fields.push_back("ETA " + duration_text(*s.seconds_left));
  if (s.load_max_mean) fields.push_back(load_text(s));
  return join(fields).substr(0, width);
}

Progress::Progress(std::FILE* out, ProgressStyle style, std::function<double()> now)
    : out_(out), live_(is_live(out, style)), now_(std::move(now)) {
  if (!now_) now_ = [] { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); };
}

Progress::~Progress() { finish(); }

void Progress::update(ProgressState state) {
  const double now = now_();
  if (!start_) {
    start_ = now;
    start_step_ = state.step;
  }
  if (!live_) {
    fmt::print(out_, "{}\n", plain_line(state));
    std::fflush(out_);
    return;
  }
  const bool last = state.step >= state.steps;
  if (drawn_ >= 0 && now - drawn_ < kRedrawSeconds && !last) return;
  drawn_ = now;
  const int64_t done = state.step - start_step_;
  if (!state.seconds_left && done > 0) {
    state.seconds_left = (now - *start_) / static_cast<double>(done) * static_cast<double>(std::max<int64_t>(0, state.steps - state.step));
  }
  draw(terminal_line(state, width_of(out_) - 1));
}

void Progress::message(std::string_view line) {
  const std::string under = line_;
  clear();
  fmt::print(out_, "{}\n", line);
  if (!under.empty()) draw(under);
  std::fflush(out_);
}

void Progress::finish() {
  if (!line_.empty()) fmt::print(out_, "\n");
  line_.clear();
  std::fflush(out_);
}

void Progress::draw(const std::string& line) {
  // Carriage return, the text, then "erase to the end of the line".
  fmt::print(out_, "\r{}\x1b[K", line);
  std::fflush(out_);
  line_ = line;
}

void Progress::clear() {
  if (!line_.empty()) fmt::print(out_, "\r\x1b[K");
  line_.clear();
}

}  // namespace ermoe
