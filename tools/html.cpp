#include "tools/html.h"

#include "core/error.h"
#include "data/encode_jpeg.h"
#include "data/encode_png.h"
#include "data/text/unicode.h"

#include <algorithm>

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

/// No control of a terminal and none of the direction of writing (Unicode: bidirectional overrides, embeddings and isolates).
bool is_shown(int32_t c) {
  const bool blank = c == '\t' || c == '\n' || c == '\r';
  const bool control = (c < 0x20 && !blank) || (c >= 0x7F && c < 0xA0);
  return !control && !(c >= 0x202A && c <= 0x202E) && !(c >= 0x2066 && c <= 0x2069);
}

}  // namespace

std::string replaced(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  for (size_t at = text.find(from); at != std::string_view::npos; at = text.find(from)) {
    out += text.substr(0, at);
    out += to;
    text.remove_prefix(at + from.size());
  }
  return out += text;
}

std::string html_text(std::string_view bytes) {
  const std::string text = valid_utf8(bytes, bytes.size());
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    if (c.value == '&')
      out += "&amp;";
    else if (c.value == '<')
      out += "&lt;";
    else if (c.value == '>')
      out += "&gt;";
    else if (c.value == '"')
      out += "&quot;";
    else if (is_shown(c.value))
      out.append(text, at, static_cast<size_t>(c.bytes));
    else
      out += "\xef\xbf\xbd";
    at += static_cast<size_t>(c.bytes);
  }
  return out;
}

std::string filled(std::string_view page, std::initializer_list<std::pair<std::string_view, std::string_view>> values) {
  std::string out;
  for (size_t at = page.find("{{"); at != std::string_view::npos; at = page.find("{{")) {
    const size_t end = page.find("}}", at);
    const std::string_view name = page.substr(at + 2, end - at - 2);
    const auto value = std::ranges::find(values, name, [](const auto& v) { return v.first; });
    check(end != std::string_view::npos && value != values.end(), "[html] the page has a mark {} that nothing fills", name);
    out += page.substr(0, at);
    out += value->second;
    page.remove_prefix(end + 2);
  }
  return out += page;
}

std::string data_uri(const Image& image) {
  constexpr int64_t small = 64;
  constexpr int quality = 85;
  if (std::max(image.width, image.height) <= small) return "data:image/png;base64," + base64(encode_png(image));
  return "data:image/jpeg;base64," + base64(encode_jpeg(image, quality));
}

}  // namespace ermoe
