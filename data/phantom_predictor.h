// What nobody can beat on made-up subjects: the best guess of an age from the true effects in the planted regions. Used by
// data/phantom.h, which draws subjects by the same rule.
#pragma once

#include "core/rng.h"

#include <cstdint>

namespace ermoe {

/// Ages uniform from `from` to `to`. All that a subject's regions say of its age comes to one number, its age plus a normal error
/// of deviation `error_years` (the regions' own ages, averaged by their precision: a sufficient statistic).
struct AgeModel {
  double from = 20, to = 80;
  double error_years = 4;

  /// The posterior's mean given that number: of the normal density around it, cut off at the ends of the range.
  double best_guess(double seen) const;
  /// Mean absolute error of the best guess: in closed form given what is seen, integrated numerically over that.
  double mean_error() const;
  /// The same far from the ends of the range, where it is error_years sqrt(2 / pi).
  double mean_error_inside() const;
  /// Mean absolute error of the best guess over made-up subjects.
  double simulated_error(int64_t draws, RngKey key) const;
  /// Of a guess that is always the middle.
  double mean_predictor_error() const { return (to - from) / 4; }
};

}  // namespace ermoe
