// How fast ranks reach each other, measured at the start of a run: a few collectives of all ranks, small ones and large ones.
// What it is for: tools/parallel_choice.h. Whole curves: tools/bench/comm_bench.h.
#pragma once

#include "tools/engine.h"
#include "tools/parallel_choice.h"

namespace ermoe {

/// All ranks call it at the same time, and get the same numbers. Takes some tenths of a second at most but for what a first collective
/// costs, and for one of 256 KiB where links are slow.
Links measure_links(const Engine& engine);

}  // namespace ermoe
