// Where the seconds of a training step went: filled in by models/train_step.cpp, shown by ermoe-bench. Reading a clock six
// times a step costs nothing beside the step, so it is always on.
#pragma once

#include <chrono>

namespace ermoe {

/// Seconds of each phase, summed over micro-batches, as the host sees them. Together they are the step.
struct StepTimes {
  double forward = 0;     // model and loss
  double backward = 0;    // gradients of weights and of matrices made from factors
  double pull_back = 0;   // reduction over ranks, gradients of the factors
  double optimizer = 0;   // gradient norm, clipping, Adam
  double orthogonal = 0;  // steps and retractions on the Stiefel manifold
  double refresh = 0;     // matrices from their factors

  double total() const { return forward + backward + pull_back + optimizer + orthogonal + refresh; }
};

class Stopwatch {
 public:
  /// Seconds since it was made, or since the last call.
  double lap() {
    const auto now = Clock::now();
    const double seconds = std::chrono::duration<double>(now - start_).count();
    start_ = now;
    return seconds;
  }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point start_ = Clock::now();
};

}  // namespace ermoe
