// Reading JSON that nobody vouches for: configuration, captions, checkpoint manifests, safetensors headers. Size, depth and the
// number of values are capped before memory is spent, and an object may not name a key twice.
// Read next: core/file_io.h, core/safetensors.h.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace ermoe {

/// What a text may cost. One value takes at most about 100 bytes of memory, so `max_values` bounds the whole.
struct JsonLimits {
  size_t max_bytes = size_t{16} << 20;
  int max_depth = 64;  // arrays and objects inside each other
  size_t max_values = 4'000'000;
  /// Where it is not empty: the keys that are wanted. Values of other keys are read past and cost nothing, so that of a large file only
  /// what is needed is kept.
  std::vector<std::string_view> keys = {};
};

/// The document in `text`; anything but white space after it is refused.
/// Throws `InputError` naming `source` (a file or a flag) and the line and column, the key or the limit.
nlohmann::json parse_json(std::string_view text, const std::string& source, const JsonLimits& limits = {});

/// The document in a file. Throws `InputError` as `parse_json` does, and where the file cannot be read.
nlohmann::json read_json(const std::string& path, const JsonLimits& limits = {});

}  // namespace ermoe
