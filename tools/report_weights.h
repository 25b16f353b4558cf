// What a layer's experts became, read off their weights, for the report: singular values, and how much their subspaces have in common.
#pragma once

#include "models/moe.h"

#include <nlohmann/json_fwd.hpp>

namespace ermoe {

/// {"place": […], "W1": [[…], …], "W2": …}: of each expert the singular values of its two matrices, descending, at these places (from 1; at
/// most 64 of them). Eigen experts' are their scales |s|, which are the singular values as long as U and V are orthonormal; plain experts'
/// are computed here. Null where matrices are so large that this would take minutes.
nlohmann::ordered_json report_spectra(const ExecContext& ctx, MoeLayer& layer);

/// (E, E): ‖B_aᵀB_b‖²/R of the routing bases, or of the leading columns of V1 where a router has none of its own. Null for plain experts.
nlohmann::ordered_json report_overlap(const ExecContext& ctx, MoeLayer& layer);

}  // namespace ermoe
