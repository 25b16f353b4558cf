// JSON from a stranger, read safely: size and depth are capped, a key may occur once an object, numbers must be finite,
// and every fault is an InputError of one sentence that names the file and the place. Read next: tools/config_io.h.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <string>
#include <string_view>

namespace ermoe {

struct JsonLimits {
  int64_t bytes = int64_t{1} << 20;
  int depth = 64;
};

/// Parses one JSON document. `name` (a file, mostly) starts every message. Throws InputError.
nlohmann::json parse_json(const std::string& name, std::string_view text, JsonLimits limits = {});

/// Reads and parses a file; a missing, unreadable or oversized one is an InputError too.
nlohmann::json read_json_file(const std::string& path, JsonLimits limits = {});

/// The whole file, refused (InputError) where it is no regular file or holds more than `max_bytes`.
std::string read_text_file(const std::string& path, int64_t max_bytes);

/// `text` fit for one line of a message: control and non-ASCII bytes become '?', and it is cut at `limit` characters.
std::string printable(std::string_view text, size_t limit = 60);

}  // namespace ermoe
