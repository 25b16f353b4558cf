// Images out of a block of records. Read data/packed.h first.
#include "data/packed.h"

#include "core/error.h"

#include <cstring>

namespace ermoe {

PackedDataset::PackedDataset(std::string records, const RecordLayout& layout, std::vector<int32_t> labels,
                             std::vector<std::string> class_names, std::vector<RecordFile> files)
    : records_(std::move(records)),
      layout_(layout),
      labels_(std::move(labels)),
      class_names_(std::move(class_names)),
      files_(std::move(files)) {
  check(layout.pixel_offset + layout.pixels() <= layout.record_bytes, "[packed] {} pixels at {} in a record of {} bytes", layout.pixels(),
        layout.pixel_offset, layout.record_bytes);
  check(size() >= 1 && static_cast<int64_t>(records_.size()) / layout.record_bytes >= size(), "[packed] {} bytes for {} records of {}",
        records_.size(), size(), layout.record_bytes);
}

Image PackedDataset::read(int64_t i) const {
  check(i >= 0 && i < size(), "[packed] sample {} of {}", i, size());
  Image image{layout_.height, layout_.width, layout_.channels, {}};
  image.pixels.resize(static_cast<size_t>(layout_.pixels()));
  const auto* from = reinterpret_cast<const uint8_t*>(records_.data() + i * layout_.record_bytes + layout_.pixel_offset);
  if (layout_.order == PixelOrder::interleaved) {
    std::memcpy(image.pixels.data(), from, image.pixels.size());
    return image;
  }
  const int64_t plane = layout_.height * layout_.width;
  for (int64_t c = 0; c < layout_.channels; ++c) {
    for (int64_t p = 0; p < plane; ++p) image.pixels[static_cast<size_t>(p * layout_.channels + c)] = from[c * plane + p];
  }
  return image;
}

std::string PackedDataset::name(int64_t i) const {
  int64_t left = i;
  for (const RecordFile& file : files_) {
    if (left < file.records) return fmt::format("{}[{}]", file.name, left);
    left -= file.records;
  }
  return fmt::format("record {}", i);
}

}  // namespace ermoe
