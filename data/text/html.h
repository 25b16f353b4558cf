// Characters that captions from the web spell as HTML does: `&amp;`, `&#233;`, `&eacute;`.
#pragma once

#include <string>
#include <string_view>

namespace ermoe {

/// Valid UTF-8 with its character references resolved once, by HTML 5's rules (as Python's html.unescape): numbers, HTML 4's 252 names
/// and `&apos;`, the old names without a semicolon too (`&ampx` is "&x"). A name that it does not know stays as it is.
/// Numbers that are no character become U+FFFD, control characters vanish, 0x80 to 0x9F are read as Windows-1252.
std::string unescape_html(std::string_view text);

}  // namespace ermoe
