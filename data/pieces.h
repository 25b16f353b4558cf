// A text cut at a separator: rows of tables that quote nothing, and small notations.
#pragma once

#include <algorithm>
#include <string_view>
#include <vector>

namespace ermoe {

/// What stands between separators, empty pieces too: one at least. Views of `text`.
inline std::vector<std::string_view> pieces_of(std::string_view text, char separator) {
  std::vector<std::string_view> pieces;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find(separator, at), text.size());
    pieces.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return pieces;
}

}  // namespace ermoe
