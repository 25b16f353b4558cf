// Names that a user describes by a pattern.
#pragma once

#include <string_view>

namespace ermoe {

/// `pattern` with * for any text and ? for one character, matched against the whole name. Takes at most the product of their lengths.
bool matches_wildcards(std::string_view pattern, std::string_view name);

}  // namespace ermoe
