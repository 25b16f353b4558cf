// Whether a matrix enters a product as stored or transposed.
#pragma once

namespace ermoe {

enum class Trans { no, yes };

constexpr Trans flip(Trans t) { return t == Trans::yes ? Trans::no : Trans::yes; }

}  // namespace ermoe
