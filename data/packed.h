// A data set of equally sized raw images that lies in memory as one block of records: the form of IDX and CIFAR files.
#pragma once

#include "data/dataset.h"

#include <cstdint>
#include <string>
#include <vector>

namespace ermoe {

enum class PixelOrder { interleaved, planar };  // (H, W, C) or (C, H, W)

/// Where the pixels of a record lie.
struct RecordLayout {
  int64_t height = 0, width = 0, channels = 1;
  PixelOrder order = PixelOrder::interleaved;
  int64_t record_bytes = 0;  // distance from one record to the next
  int64_t pixel_offset = 0;  // of the first pixel in its record
  int64_t pixels() const { return height * width * channels; }
};

/// A file and how many of the records came from it, in order.
struct RecordFile {
  std::string name;
  int64_t records = 0;
};

class PackedDataset final : public ImageDataset {
 public:
  /// `records` (n, record_bytes), one label in [0, classes) each. Throws `Error` where the sizes disagree.
  PackedDataset(std::string records, const RecordLayout& layout, std::vector<int32_t> labels, std::vector<std::string> class_names,
                std::vector<RecordFile> files);

  int64_t size() const override { return static_cast<int64_t>(labels_.size()); }
  const std::vector<std::string>& class_names() const override { return class_names_; }
  int32_t label(int64_t i) const override { return labels_.at(static_cast<size_t>(i)); }
  Image read(int64_t i) const override;
  std::string name(int64_t i) const override;

 private:
  std::string records_;
  RecordLayout layout_;
  std::vector<int32_t> labels_;
  std::vector<std::string> class_names_;
  std::vector<RecordFile> files_;
};

}  // namespace ermoe
