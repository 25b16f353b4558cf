#include "tools/report_page.h"

#include "core/error.h"
#include "data/encode_jpeg.h"
#include "data/encode_png.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <initializer_list>
#include <utility>

namespace ermoe {
namespace {

std::string base64(std::string_view bytes) {
  constexpr std::string_view letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t three = 0;
    for (size_t k = 0; k < 3; ++k) three = three << 8 | (i + k < bytes.size() ? static_cast<uint8_t>(bytes[i + k]) : 0u);
    for (size_t k = 0; k < 4; ++k) text += i + k > bytes.size() ? '=' : letters[three >> (18 - 6 * k) & 63];
  }
  return text;
}

/// `text` with every occurrence of `from` replaced.
std::string replaced(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  for (size_t at = text.find(from); at != std::string_view::npos; at = text.find(from)) {
    out += text.substr(0, at);
    out += to;
    text.remove_prefix(at + from.size());
  }
  return out += text;
}

std::string escaped(std::string_view text) { return replaced(replaced(replaced(text, "&", "&amp;"), "<", "&lt;"), ">", "&gt;"); }

/// Puts each value where its mark {{name}} stands. Values are not looked through for marks: a class may be called {{css}}.
std::string filled(std::string_view page, std::initializer_list<std::pair<std::string_view, std::string_view>> values) {
  std::string out;
  for (size_t at = page.find("{{"); at != std::string_view::npos; at = page.find("{{")) {
    const size_t end = page.find("}}", at);
    const std::string_view name = page.substr(at + 2, end - at - 2);
    const auto value = std::ranges::find(values, name, [](const auto& v) { return v.first; });
    check(end != std::string_view::npos && value != values.end(), "[report] page.html has a mark {} that nothing fills", name);
    out += page.substr(0, at);
    out += value->second;
    page.remove_prefix(end + 2);
  }
  return out += page;
}

}  // namespace

std::string report_page(const std::string& title, const nlohmann::ordered_json& data) {
  const PageParts parts = page_parts();
  // In a string of JSON, "<" may as well be written \u003c: then no </script> ends the data.
  const std::string json = replaced(data.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace), "<", "\\u003c");
  return filled(parts.html, {{"title", escaped(title)},
                             {"css", parts.css},
                             {"data", json},
                             {"charts", parts.charts},
                             {"page", parts.page},
                             {"sections", parts.sections},
                             {"selftest", parts.selftest}});
}

std::string data_uri(const Image& image) {
  constexpr int64_t small = 64;
  constexpr int quality = 85;
  if (std::max(image.width, image.height) <= small) return "data:image/png;base64," + base64(encode_png(image));
  return "data:image/jpeg;base64," + base64(encode_jpeg(image, quality));
}

double brief(double value) { return std::isfinite(value) ? std::strtod(fmt::format("{:.5g}", value).c_str(), nullptr) : value; }

}  // namespace ermoe
