// The most common kind of JPEG, told from a walk over its markers that decodes nothing: what may be handed to a JPEG engine.
// Engines and their libraries trust what they read, so only a file whose every marker is in order gets that far.
// Read next: data/decode_ahead.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace ermoe {

struct PlainJpeg {
  int64_t height = 0, width = 0;  // as stored
  int orientation = 1;            // EXIF's, 1 to 8
  size_t bytes = 0;               // up to the end of the end marker; what follows is not part of the picture
};

/// Nothing unless the file is baseline (Huffman, 8 bits), in Y, Cb, Cr at 4:4:4, 4:2:2 or 4:2:0, in a single scan, with every
/// table that it uses, as many restart markers as it announces, not less data than its size needs, and its end marker.
/// Damage inside of the compressed data is not seen. Names of sections: ITU-T T.81.
std::optional<PlainJpeg> find_plain_jpeg(std::span<const std::byte> bytes);

}  // namespace ermoe
