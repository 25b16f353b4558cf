#include "data/caption_text.h"

namespace ermoe {

namespace {

constexpr std::string_view wrong_byte = "\xef\xb7\x90";  // U+FDD0

/// Bytes of the character that begins at `at`; 0 where none does (RFC 3629: no overlong forms, no surrogates, up to U+10FFFF).
size_t character_bytes(std::string_view text, size_t at) {
  const auto byte = [&](size_t k) { return at + k < text.size() ? static_cast<uint8_t>(text[at + k]) : uint8_t{0}; };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return 1;
  const size_t bytes = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4) return 0;
  for (size_t k = 1; k < bytes; ++k) {
    if ((byte(k) & 0xc0) != 0x80) return 0;
  }
  const uint8_t second = byte(1);
  const bool wrong = (lead == 0xe0 && second < 0xa0) || (lead == 0xed && second > 0x9f) || (lead == 0xf0 && second < 0x90) ||
                     (lead == 0xf4 && second > 0x8f);
  return wrong ? 0 : bytes;
}

}  // namespace

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view blank = " \t\r\n";
  const size_t first = text.find_first_not_of(blank);
  return first == std::string_view::npos ? std::string_view() : text.substr(first, text.find_last_not_of(blank) - first + 1);
}

std::optional<int64_t> utf8_characters(std::string_view text) {
  int64_t count = 0;
  for (size_t at = 0; at < text.size(); ++count) {
    const size_t bytes = character_bytes(text, at);
    if (bytes == 0) return std::nullopt;
    at += bytes;
  }
  return count;
}

std::optional<CaptionFault> fault_of_caption(std::string_view caption) {
  if (caption.empty()) return CaptionFault::empty;
  const auto characters = utf8_characters(caption);
  if (!characters || caption.find(wrong_byte) != std::string_view::npos) return CaptionFault::not_utf8;
  if (*characters >= caption_limit) return CaptionFault::too_long;
  return std::nullopt;
}

std::optional<std::string> with_wrong_bytes_marked(std::string_view text) {
  if (utf8_characters(text)) return std::nullopt;
  std::string marked;
  marked.reserve(text.size() + 1024);
  for (size_t at = 0; at < text.size();) {
    const size_t bytes = character_bytes(text, at);
    marked += bytes == 0 ? wrong_byte : text.substr(at, bytes);
    at += bytes == 0 ? 1 : bytes;
  }
  return marked;
}

}  // namespace ermoe
