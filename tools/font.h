// A small font of our own for pictures: printable ASCII in cells of 5 x 8 pixels, the last row for descenders.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace ermoe {

inline constexpr int64_t kGlyphWidth = 5;
inline constexpr int64_t kGlyphHeight = 8;

/// The rows of a character from the top; bit 4 is the left pixel. Anything that is not printable ASCII shows as '?'.
const std::array<uint8_t, kGlyphHeight>& glyph(char c);

}  // namespace ermoe
