// What a running study tells: a line for each run that begins or ends, and how far all is; on a terminal on a line that overwrites itself,
// elsewhere once a minute.
#pragma once

#include <cstdint>
#include <cstdio>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace ermoe {

/// Of a run on its way.
struct RunningShare {
  std::string name;
  double share = 0;   // of its steps, 0 to 1
  double before = 0;  // of them, done before this program began
};

/// `work` of `total` took so long: what is left takes about …; nothing while there is too little to tell.
std::optional<double> seconds_left(double seconds, double work, double total);

/// "2 of 9 runs done; vmoe, seed 0 37 %; about 12:05 left".
std::string study_line(int64_t done, int64_t runs, const std::vector<RunningShare>& running, std::optional<double> left);

class StudyProgress {
 public:
  /// `work`: what is to be done, in whole runs. `now` gives seconds.
  StudyProgress(std::FILE* out, int64_t runs, int64_t done, double work, std::function<double()> now);

  void say(const std::string& line);
  /// One more is done, that was so much work.
  void finished(double work);
  /// Where it is time for it, asks `running` and tells.
  void show(const std::function<std::vector<RunningShare>()>& running);
  /// Ends the line that overwrites itself.
  void end();

 private:
  void clear();

  std::FILE* out_;
  bool live_;
  int64_t runs_, done_;
  double work_, worked_ = 0;
  std::function<double()> now_;
  double start_, shown_;
  bool drawn_ = false;
};

}  // namespace ermoe
