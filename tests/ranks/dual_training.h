// Trainings of a dual encoder that ranks share, with experts in both towers, against one process alone.
#pragma once

#include "core/comm.h"

namespace ermoe::testing {

/// A few steps: losses, norms and weights. Ranks of `experts` hold a layer's experts together, those of `replicas` the same ones. Prints a
/// line on rank 0; the same answer on all.
bool dual_training_agrees(Communicator& world, Communicator& experts, Communicator& replicas);

}  // namespace ermoe::testing
