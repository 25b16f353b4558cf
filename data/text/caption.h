// A caption before it becomes ids: whether it can be used, how it is cleaned, and how it falls into words. As CLIP has it, but that
// full ftfy (which repairs wrongly decoded text) is not here: of it, NFC is.
// Read next: data/text/tokenizer.h.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace ermoe {

/// Characters of a caption that are read; `check_caption` refuses longer ones.
inline constexpr size_t longest_caption = 10'000;

/// What is wrong with a caption, to stand behind its name in a sentence ("has bytes that are no UTF-8, from byte 12 on"); nothing
/// where it is sound. Wrong are invalid UTF-8, only blanks, and more than `longest_caption` characters.
std::optional<std::string> check_caption(std::string_view text);

/// Valid UTF-8 whatever `text` is: HTML references resolved twice, NFC, white space collapsed to single blanks and none at the ends,
/// lower case. At most `longest_caption` characters are read.
std::string clean_caption(std::string_view text);

/// Takes the next word off cleaned text; empty at its end. Words are the matches of CLIP's pattern
/// `'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+`.
std::string_view take_word(std::string_view& text);

}  // namespace ermoe
