#include "tools/json_text.h"

#include "core/error.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <vector>

namespace ermoe {
namespace {

using nlohmann::json;

struct Place {
  int64_t line = 1, column = 1;
};

Place place_of(std::string_view text, size_t byte) {
  Place place;
  for (size_t i = 0; i < std::min(byte, text.size()); ++i) {
    if (text[i] == '\n') {
      ++place.line;
      place.column = 1;
    } else {
      ++place.column;
    }
  }
  return place;
}

/// What the parser says after its codes and positions: "unexpected end of input; expected …" up to the semicolon.
std::string short_reason(std::string_view what) {
  const size_t dash = what.find(" - ");
  if (dash != std::string_view::npos) what.remove_prefix(dash + 3);
  return printable(what.substr(0, what.find(';')), 100);
}

/// Watches a parse from inside: the library itself neither caps depth nor minds a key that comes twice.
class Guard {
 public:
  Guard(const std::string& name, int max_depth) : name_(name), max_depth_(max_depth) {}

  bool operator()(int depth, json::parse_event_t event, json& value) {
    switch (event) {
      case json::parse_event_t::object_start:
      case json::parse_event_t::array_start:
        check_input(depth < max_depth_, "{}: nested deeper than {} levels", name_, max_depth_);
        keys_.emplace_back();
        break;
      case json::parse_event_t::object_end:
      case json::parse_event_t::array_end: keys_.pop_back(); break;
      case json::parse_event_t::key: {
        const std::string& key = value.get_ref<const std::string&>();
        check_input(keys_.back().insert(key).second, "{}: the key \"{}\" occurs twice", name_, printable(key));
        break;
      }
      case json::parse_event_t::value: break;
    }
    return true;
  }

 private:
  const std::string& name_;
  int max_depth_;
  std::vector<std::set<std::string>> keys_;  // one set an open object or array
};

}  // namespace

std::string printable(std::string_view text, size_t limit) {
  std::string out;
  for (const char c : text.substr(0, limit)) out += (c >= 0x20 && c < 0x7f) ? c : '?';
  if (text.size() > limit) out += "...";
  return out;
}

json parse_json(const std::string& name, std::string_view text, JsonLimits limits) {
  check_input(static_cast<int64_t>(text.size()) <= limits.bytes, "{}: larger than the {} bytes allowed", name, limits.bytes);
  // The library takes a NUL byte for the end of its input and would not look at what follows.
  check_input(text.find('\0') == std::string_view::npos, "{}: not valid JSON: it holds a NUL byte", name);
  try {
    Guard guard(name, limits.depth);
    return json::parse(text.begin(), text.end(), std::ref(guard));
  } catch (const json::parse_error& e) {
    const Place at = place_of(text, e.byte > 0 ? e.byte - 1 : 0);
    fail_input("{}: not valid JSON at line {}, column {}: {}", name, at.line, at.column, short_reason(e.what()));
  } catch (const json::exception& e) {
    fail_input("{}: not usable JSON: {}", name, short_reason(e.what()));
  }
}

std::string read_text_file(const std::string& path, int64_t max_bytes) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  check_input(std::filesystem::exists(status), "{}: no such file", path);
  check_input(std::filesystem::is_regular_file(status), "{}: not a regular file", path);
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  check_input(file.good(), "{}: cannot be opened ({})", path, std::strerror(errno));
  std::string text;
  std::vector<char> block(1 << 16);
  while (file.read(block.data(), static_cast<std::streamsize>(block.size())), file.gcount() > 0) {
    text.append(block.data(), static_cast<size_t>(file.gcount()));
    check_input(static_cast<int64_t>(text.size()) <= max_bytes, "{}: larger than the {} bytes allowed", path, max_bytes);
  }
  return text;
}

json read_json_file(const std::string& path, JsonLimits limits) { return parse_json(path, read_text_file(path, limits.bytes), limits); }

}  // namespace ermoe
