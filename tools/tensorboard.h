// TensorBoard's event file, written by hand: records (length, its checksum, bytes, their checksum) of protobuf Events, of
// which only scalars are needed. Numbers of fields: event.proto and summary.proto of TensorFlow. Used by metrics_log.h.
#pragma once

#include "tools/append_file.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ermoe {

/// CRC-32C (Castagnoli, reflected polynomial 0x82f63b78).
uint32_t crc32c(std::string_view bytes);

/// One TFRecord: u64 length, u32 masked CRC of it, the bytes, u32 masked CRC of them; little-endian.
std::string tf_record(std::string_view bytes);

/// One run's file `events.out.tfevents.<seconds>.<host>.<pid>`, flushed after every row.
class TensorBoardWriter {
 public:
  /// Opens a new file in `folder`. `first_step` > 0 tells the reader to forget points of earlier files from there on,
  /// which a resumed run computes anew.
  TensorBoardWriter(const std::string& folder, int64_t first_step);

  /// Adds a point to the curve of each tag ("train/loss").
  void add(int64_t step, const std::vector<std::pair<std::string, double>>& scalars);

  const std::string& path() const { return file_.path(); }

 private:
  AppendFile file_;
};

}  // namespace ermoe
