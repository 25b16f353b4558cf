// Cleaning and splitting. Read data/text/caption.h first.
#include "data/text/caption.h"

#include "core/error.h"
#include "data/text/html.h"
#include "data/text/unicode.h"

#include <array>

namespace ermoe {
namespace {

/// Python's str.strip() takes these from the ends as well, though they are no white space inside (Unicode: controls).
bool is_separator(int32_t c) { return c >= 0x1C && c <= 0x1F; }

bool is_blank(int32_t c) { return is_separator(c) || kind_of(c) == CharacterKind::space; }

std::string_view stripped(std::string_view text) {
  while (!text.empty()) {
    const CodePoint c = code_point_at(text, 0);
    if (!is_blank(c.value)) break;
    text.remove_prefix(static_cast<size_t>(c.bytes));
  }
  while (!text.empty()) {
    size_t last = text.size() - 1;
    while ((static_cast<unsigned char>(text[last]) & 0xC0) == 0x80) --last;
    if (!is_blank(code_point_at(text, last).value)) break;
    text = text.substr(0, last);
  }
  return text;
}

std::string with_single_blanks(std::string_view text) {
  std::string single;
  single.reserve(text.size());
  bool after_space = false;
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    const bool space = kind_of(c.value) == CharacterKind::space;
    if (!space) single.append(text, at, static_cast<size_t>(c.bytes));
    if (space && !after_space) single += ' ';
    after_space = space;
    at += static_cast<size_t>(c.bytes);
  }
  return single;
}

/// Length of `'s` and its like at the front of `text`; 0 where there is none.
size_t contraction(std::string_view text) {
  constexpr std::array<std::string_view, 7> endings{"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};
  if (!text.starts_with('\'')) return 0;
  for (const std::string_view ending : endings)
    if (text.starts_with(ending)) return ending.size();
  return 0;
}

}  // namespace

std::optional<std::string> check_caption(std::string_view text) {
  if (const auto at = first_invalid_byte(text)) return fmt::format("has bytes that are no UTF-8, from byte {} on", *at);
  size_t characters = 0;
  for (const char c : text) characters += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  if (characters > longest_caption) return fmt::format("has {} characters, and {} are the most", characters, longest_caption);
  if (text.empty()) return "is empty";
  if (clean_caption(text).empty()) return "has nothing but blanks";
  return std::nullopt;
}

std::string clean_caption(std::string_view text) {
  std::string clean = valid_utf8(text, longest_caption);
  if (clean.find('&') != std::string::npos) clean = unescape_html(unescape_html(clean));
  clean = composed(std::move(clean));
  return in_lower_case(with_single_blanks(stripped(clean)));
}

std::string_view take_word(std::string_view& text) {
  while (text.starts_with(' ')) text.remove_prefix(1);
  if (text.empty()) return {};
  size_t end = contraction(text);
  if (end == 0) {
    const CodePoint first = code_point_at(text, 0);
    const CharacterKind kind = kind_of(first.value);
    end = static_cast<size_t>(first.bytes);
    while (kind != CharacterKind::number && end < text.size()) {
      const CodePoint c = code_point_at(text, end);
      if (kind_of(c.value) != kind) break;
      end += static_cast<size_t>(c.bytes);
    }
  }
  const std::string_view word = text.substr(0, end);
  text.remove_prefix(end);
  return word;
}

}  // namespace ermoe
