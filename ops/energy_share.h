// How a vector's energy is spread over the axes it is given in. Read next: models/router_emoe.cpp.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// y = x² / (Σ x² + eps), element by element over the last axis: shares that sum to just below 1, and to 0 for a row of zeros.
/// x (…, D), eps > 0. In a compute dtype. (EMoE, arXiv 2601.12137.)
Variable energy_share(const ExecContext& ctx, const Variable& x, double eps);

}  // namespace ermoe
