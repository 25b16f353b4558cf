// Which columns of a basis that all experts share belong to the experts at hand. Read next: ops/join_basis.h.
#pragma once

#include "core/shape.h"

namespace ermoe {

/// Of a basis (D, E·R), E = `experts`, the columns of the experts from `first` on. experts = 0: those at hand are all.
struct BasisPart {
  int64_t first = 0, experts = 0;

  int64_t of_all(int64_t at_hand) const { return experts > 0 ? experts : at_hand; }
};

}  // namespace ermoe
