// Do factors stay orthonormal while an optimizer steps them, and what does it cost? The optimizer itself, on the factors
// U1 (4D, D) and V1 (D, D) of a layer's experts, with fresh random gradients every step.
#pragma once

#include "models/config.h"
#include "tools/bench/measure.h"
#include "tools/engine.h"

namespace ermoe {

struct OrthogonalityOptions {
  int64_t width = 384;  // D
  int64_t experts = 1;
  Orthogonality method = Orthogonality::newton_schulz;
  int64_t steps = 2000;
  int64_t warmup = 0;  // steps of linear warm-up of the learning rate
  double lr = 1e-3;
  int64_t check_every = 1;
};

/// What max|QᵀQ - I| may be after any step.
inline constexpr double orthogonality_promise = 5e-6;

struct OrthogonalityResult {
  double worst = 0;             // max|QᵀQ - I| over the checked steps, computed in double
  int64_t worst_step = 0;       // 1-based
  Timing step;                  // of both factors of all experts, Adam included
  double orthogonal_share = 0;  // of a CPU's time, that is not Adam; 0 on a GPU, whose time the host does not know
  bool kept() const { return worst <= orthogonality_promise; }  // false for a NaN too
};

OrthogonalityResult bench_orthogonality(const Engine& engine, const OrthogonalityOptions& options);

}  // namespace ermoe
