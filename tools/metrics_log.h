// The numbers of a run, written three ways as they come: metrics.jsonl (one object a row), metrics.csv (one table whose
// columns grow to the right) and TensorBoard events. Read next: tools/run_folder.h, tools/tensorboard.h.
#pragma once

#include "tools/append_file.h"
#include "tools/tensorboard.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ermoe {

/// Bytes of a log that are read at most.
inline constexpr size_t largest_metrics_log = size_t{1} << 30;

/// The lines of a log that were written to their end.
std::vector<std::string_view> whole_lines(std::string_view text);

struct MetricsRow {
  int64_t step = 0;   // optimizer steps done
  std::string split;  // "train", "eval"
  std::vector<std::pair<std::string, double>> values;
};

class MetricsLog {
 public:
  MetricsLog() = default;
  /// Goes on with the files in `folder`, or starts them. Rows past `resumed_step` (of steps that will be done anew) and a
  /// half-written last line are cut off. Throws InputError where a file there is none of ours.
  MetricsLog(const std::string& folder, int64_t resumed_step);

  /// Appends and flushes. Numbers that are not finite become null (JSON) or nan and inf (CSV).
  void write(const MetricsRow& row);

 private:
  void widen(const std::vector<std::string>& columns);

  AppendFile jsonl_, csv_;
  std::vector<std::string> columns_;       // of metrics.csv
  std::vector<TensorBoardWriter> events_;  // one; none in a default-constructed log
};

}  // namespace ermoe
