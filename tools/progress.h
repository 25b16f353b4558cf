// How far a run is, for whoever watches: on a terminal one line that overwrites itself, elsewhere one plain line an update.
#pragma once

#include <cstdint>
#include <cstdio>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace ermoe {

/// Fields without a value do not apply and are left out.
struct ProgressState {
  int64_t step = 0;
  int64_t steps = 0;
  std::optional<int64_t> epoch = {}, epochs = {};  // the current one counts from 1
  std::optional<double> loss = {}, gradient_norm = {}, lr = {};
  std::optional<double> step_ms = {};
  std::optional<double> images_per_s = {};
  std::optional<double> data_wait_share = {};  // of the step's time, 0 to 1
  std::optional<double> mfu = {};              // share of the machine's measured peak, 0 to 1
  std::optional<double> load_max_mean = {}, gini = {};
  std::string loaded_block = {};  // where load_max_mean is, by its name in logs; told where it is much
  int64_t loaded_expert = 0;
  std::optional<int64_t> slowest_rank = {};
  double slowest_over_mean = 1;  // its own work over the mean of all ranks'; told where it is more than a little
  std::optional<int64_t> memory_bytes = {};
  std::optional<double> seconds_left = {};
};

/// "step 120/9000 | loss 5.4321 | gnorm 1.23 | lr 3.0e-04 | 182 ms | 11.2k img/s | mfu 38.1% | load 1.31 | …"
std::string plain_line(const ProgressState& state);

/// "epoch 3/10  37% | loss 1.2345 | lr 3.0e-04 | 11.2k img/s | ETA 1:02:03 | load 1.31", cut at `width` characters.
std::string terminal_line(const ProgressState& state, size_t width);

/// "0:42", "12:05", "1:02:03", "2d 3:04:05".
std::string duration_text(double seconds);

/// "11.2k", "853", "2.4M".
std::string rate_text(double per_second);

enum class ProgressStyle { detect, terminal, plain };

class Progress {
 public:
  /// `now` gives seconds; the default is the steady clock.
  explicit Progress(std::FILE* out = stdout, ProgressStyle style = ProgressStyle::detect, std::function<double()> now = {});
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// True on a terminal: then `update` may be called after every step and redraws at most ten times a second.
  bool live() const { return live_; }

  /// Shows where the run is. The time left is estimated from the updates so far unless the state says it.
  void update(ProgressState state);

  /// A line of its own, above the progress line on a terminal.
  void message(std::string_view line);

  /// Ends the progress line, so that what follows starts on a fresh one.
  void finish();

 private:
  void draw(const std::string& line);
  void clear();

  std::FILE* out_;
  bool live_;
  std::function<double()> now_;
  std::optional<double> start_;  // time of the first update
  int64_t start_step_ = 0;
  double drawn_ = -1;  // time of the last drawing
  std::string line_;   // what stands on the terminal's last line
};

}  // namespace ermoe
