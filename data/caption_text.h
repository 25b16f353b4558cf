// What is a caption and what is none: length and encoding. Read next: data/caption_builder.h.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace ermoe {

/// Why a caption is left out. `torn`: its row or file is not whole.
enum class CaptionFault { empty, too_long, not_utf8, torn };

/// Captions have fewer characters than this.
constexpr int64_t caption_limit = 10'000;

/// Without blanks, tabs and line breaks at its ends.
std::string_view trimmed(std::string_view text);

/// What is wrong with a trimmed caption; nothing where it is sound.
std::optional<CaptionFault> fault_of_caption(std::string_view caption);

/// Number of characters (code points); nothing where the text is no UTF-8.
std::optional<int64_t> utf8_characters(std::string_view text);

/// The text with each byte that is no part of UTF-8 replaced by U+FDD0, a code point that stands for no character; nothing where there is
/// no such byte. JSON is refused for a single wrong byte; so read, the caption that holds it can be left out (`fault_of_caption` knows the
/// mark) and the others kept.
std::optional<std::string> with_wrong_bytes_marked(std::string_view text);

}  // namespace ermoe
