// Text as code points: what is UTF-8 and what is not, and what kind of character each is. The tables are utf8proc's (Unicode 15 in
// Debian 12's). Whatever bytes come in, only valid UTF-8 goes on from here.
// Read next: data/text/caption.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace ermoe {

/// A code point and the bytes that spell it; `bytes` is 0 where they spell none.
struct CodePoint {
  int32_t value = 0;
  int32_t bytes = 0;
};

/// The code point that begins at byte `at` < text.size(): overlong forms, surrogates and values past U+10FFFF are none.
CodePoint code_point_at(std::string_view text, size_t at);

/// Appends the UTF-8 of a code point below 0x110000 that is no surrogate.
void append_code_point(std::string& text, int32_t value);

/// Where the first byte stands that begins no code point; nothing in valid UTF-8.
std::optional<size_t> first_invalid_byte(std::string_view text);

/// The first `most` characters of `text`, where every byte that begins no code point counts as one and becomes U+FFFD.
std::string valid_utf8(std::string_view text, size_t most);

/// The canonical composition (NFC) of valid UTF-8.
std::string composed(std::string text);

enum class CharacterKind : uint8_t { space, letter, number, other };

/// Space: Unicode's White_Space. Letter: \p{L}. Number: \p{N}. Marks, symbols, punctuation and controls are other.
CharacterKind kind_of(int32_t code_point);

/// Valid UTF-8 in lower case, as Python's str.lower() has it: U+0130 becomes two characters, and a Greek sigma that ends its word
/// becomes the final form. Letters that are cased by an extra property alone (circled ones) do not count as a sigma's neighbours.
std::string in_lower_case(std::string_view text);

}  // namespace ermoe
