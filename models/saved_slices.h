// What each rank writes into a checkpoint's files and reads from them (core/saved_slice.h): the model, the optimizer's moments, the
// averages. Read next: models/checkpoint.h.
#pragma once

#include "core/saved_slice.h"
#include "models/model.h"
#include "models/optim.h"

#include <vector>

namespace ermoe {

/// Every parameter (factors, not what is derived from them) and buffer. What all ranks have, `rank` writes where it is 0.
std::vector<SavedSlice> saved_slices(Model& model, int rank);

/// The averages and the statistics kept with them, and below the moments, in the order of names: that of an arena goes by sizes, which
/// differ where ranks hold different numbers of experts.
std::vector<SavedSlice> saved_slices(const MovingAverage& average, int rank);

/// Stored as precisely as they are.
std::vector<SavedSlice> saved_slices(const Optimizer& optimizer, int rank);

}  // namespace ermoe
