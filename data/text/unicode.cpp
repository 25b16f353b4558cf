// UTF-8, categories and cases. Read data/text/unicode.h first.
#include "data/text/unicode.h"

#include "core/error.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>

namespace ermoe {
namespace {

constexpr int32_t replacement = 0xFFFD;
constexpr int32_t capital_i_with_dot = 0x130, combining_dot = 0x307;
constexpr int32_t capital_sigma = 0x3A3, small_sigma = 0x3C3, final_sigma = 0x3C2;

const utf8proc_uint8_t* bytes_at(std::string_view text, size_t at) { return reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + at; }

/// Upper, lower and title case.
bool is_cased(int32_t c) {
  const utf8proc_category_t category = utf8proc_category(c);
  return category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LL || category == UTF8PROC_CATEGORY_LT;
}

/// Unicode's Case_Ignorable: marks, formats, modifiers, and what may stand inside a word as an apostrophe does.
bool is_case_ignorable(int32_t c) {
  switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK: return true;
    default: break;
  }
  constexpr std::array inside_words{0x27,   0x2E,   0x3A,   0xB7,   0x387,  0x55F,  0x5F4,  0x2018, 0x2019,
                                    0x2024, 0x2027, 0xFE13, 0xFE52, 0xFE55, 0xFF07, 0xFF0E, 0xFF1A};
  return std::ranges::find(inside_words, c) != inside_words.end();
}

/// Whether a cased letter ends at `at`, or case-ignorable characters that follow one.
bool cased_letter_precedes(std::string_view text, size_t at) {
  while (at > 0) {
    do --at;
    while ((static_cast<unsigned char>(text[at]) & 0xC0) == 0x80);
    const CodePoint c = code_point_at(text, at);
    if (!is_case_ignorable(c.value)) return is_cased(c.value);
  }
  return false;
}

/// Whether a cased letter stands at `at` or behind case-ignorable characters from there on.
bool cased_letter_follows(std::string_view text, size_t at) {
  while (at < text.size()) {
    const CodePoint c = code_point_at(text, at);
    if (!is_case_ignorable(c.value)) return is_cased(c.value);
    at += static_cast<size_t>(c.bytes);
  }
  return false;
}

}  // namespace

CodePoint code_point_at(std::string_view text, size_t at) {
  const auto first = static_cast<unsigned char>(text[at]);
  if (first < 0x80) return {first, 1};
  const auto left = static_cast<utf8proc_ssize_t>(std::min<size_t>(text.size() - at, 4));
  CodePoint point;
  const utf8proc_ssize_t bytes = utf8proc_iterate(bytes_at(text, at), left, &point.value);
  point.bytes = bytes > 0 ? static_cast<int32_t>(bytes) : 0;
  return point;
}

void append_code_point(std::string& text, int32_t value) {
  std::array<utf8proc_uint8_t, 4> bytes{};
  const utf8proc_ssize_t count = utf8proc_encode_char(value, bytes.data());
  text.append(reinterpret_cast<const char*>(bytes.data()), static_cast<size_t>(count));
}

std::optional<size_t> first_invalid_byte(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    if (c.bytes == 0) return at;
    at += static_cast<size_t>(c.bytes);
  }
  return std::nullopt;
}

std::string valid_utf8(std::string_view text, size_t most) {
  std::string valid;
  valid.reserve(std::min(text.size(), 4 * most));
  for (size_t at = 0; at < text.size() && most > 0; --most) {
    const CodePoint c = code_point_at(text, at);
    if (c.bytes == 0) {
      append_code_point(valid, replacement);
      ++at;
    } else {
      valid.append(text, at, static_cast<size_t>(c.bytes));
      at += static_cast<size_t>(c.bytes);
    }
  }
  return valid;
}

std::string composed(std::string text) {
  // Below U+0300, whose first byte is 0xCC, there are no combining marks: such text is composed already.
  if (std::ranges::all_of(text, [](char c) { return static_cast<unsigned char>(c) < 0xCC; })) return text;
  utf8proc_uint8_t* out = nullptr;
  constexpr auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
  const utf8proc_ssize_t bytes = utf8proc_map(bytes_at(text, 0), static_cast<utf8proc_ssize_t>(text.size()), &out, options);
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(out, &std::free);
  check(bytes >= 0, "[composed] {}", utf8proc_errmsg(bytes));
  return {reinterpret_cast<const char*>(out), static_cast<size_t>(bytes)};
}

CharacterKind kind_of(int32_t c) {
  if ((c >= 0x9 && c <= 0xD) || c == 0x85) return CharacterKind::space;
  switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP: return CharacterKind::space;
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO: return CharacterKind::letter;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO: return CharacterKind::number;
    default: return CharacterKind::other;
  }
}

std::string in_lower_case(std::string_view text) {
  std::string lower;
  lower.reserve(text.size() + 2);
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    const size_t next = at + static_cast<size_t>(c.bytes);
    if (c.value < 0x80) {
      const auto letter = static_cast<char>(c.value);
      lower += letter >= 'A' && letter <= 'Z' ? static_cast<char>(letter + 'a' - 'A') : letter;
    } else if (c.value == capital_i_with_dot) {
      append_code_point(lower += 'i', combining_dot);
    } else if (c.value == capital_sigma) {
      const bool last = cased_letter_precedes(text, at) && !cased_letter_follows(text, next);
      append_code_point(lower, last ? final_sigma : small_sigma);
    } else {
      append_code_point(lower, utf8proc_tolower(c.value));
    }
    at = next;
  }
  return lower;
}

}  // namespace ermoe
