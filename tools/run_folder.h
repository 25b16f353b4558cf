// The folder of one run: config.json, metrics.jsonl, metrics.csv, TensorBoard events and checkpoints/. A folder belongs to
// one run, and to one process at a time. Read next: tools/metrics_log.h.
#pragma once

#include "core/file_io.h"
#include "tools/metrics_log.h"
#include "tools/run_config.h"

#include <cstdint>
#include <string>
#include <vector>

namespace ermoe {

/// The run folder that `path` means: itself, or the one that a checkpoint RUN/checkpoints/NAME lies in.
std::string run_folder_of(const std::string& path);

/// Run folders of a cross-validation in `path`, by fold; `path` itself where it is none.
std::vector<std::string> models_in(const std::string& path);

class RunFolder {
 public:
  /// Makes the folder `config.train.out` (empty: a new one, runs/NAME or runs/DATE-TIME) and writes config.json. A folder that holds
  /// a run is refused (InputError), unless it is the one of `config.train.resume`: then metrics past `resumed_step` are cut off.
  explicit RunFolder(const RunConfig& config, int64_t resumed_step = 0);

  const std::string& path() const { return path_; }
  std::string checkpoints() const { return path_ + "/checkpoints"; }
  std::string report() const { return path_ + "/report.html"; }

  /// Appends a row to every log of metrics.
  void write(const MetricsRow& row) { metrics_.write(row); }

 private:
  std::string path_;
  Descriptor lock_;
  MetricsLog metrics_;
};

}  // namespace ermoe
