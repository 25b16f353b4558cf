// What pages of HTML that need no network are made of: text that cannot be taken for markup, and pictures within the page.
// Read next: tools/report_page.h, tools/contact_sheet.h.
#pragma once

#include "data/image.h"

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

namespace ermoe {

/// `text` with every occurrence of `from` replaced.
std::string replaced(std::string_view text, std::string_view from, std::string_view to);

/// Any bytes as the text of an element or of an attribute in double quotes: no markup, valid UTF-8. U+FFFD stands for what is no UTF-8,
/// for control characters other than white space, and for those that turn the direction of writing round ("exe.gpj" would read "jpg.exe").
std::string html_text(std::string_view bytes);

/// Puts each value where its mark {{name}} stands in `page`. Values are not looked through for marks: a class may be called {{css}}.
/// Throws `Error` for a mark without a value.
std::string filled(std::string_view page, std::initializer_list<std::pair<std::string_view, std::string_view>> values);

/// "data:image/png;base64,…" for pictures up to 64 pixels a side, which are shown enlarged; JPEG above, where photographs and brains as
/// PNG would make the page heavy.
std::string data_uri(const Image& image);

}  // namespace ermoe
