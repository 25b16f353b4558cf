// The few statistics of a study's table: spread over seeds, and paired differences with their 95 % interval.
#pragma once

#include "models/regression_metrics.h"

#include <cstdint>
#include <optional>
#include <span>

namespace ermoe {

struct Spread {
  double mean = 0;
  std::optional<double> deviation;  // of the sample, n - 1 in the denominator; nothing for one value
};

/// Of at least one value; throws `Error` for none.
Spread spread_of(std::span<const double> values);

/// The value that Student's t with so many degrees of freedom stays below with probability `p` (0.5 to below 1). By bisection on the
/// distribution's closed form for whole degrees of freedom (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4). Throws `Error` outside.
double student_t_quantile(double p, int64_t degrees);

enum class Over { nothing, seeds, samples };

/// Of two rows, paired; below 0 where the first has the smaller figure.
struct RowDifference {
  double mean = 0;
  int64_t pairs = 0;  // seeds, or samples
  Over over = Over::nothing;
  std::optional<Interval> interval;  // 95 %
};

/// Of a row's and the baseline's figures (n >= 1) by seed. Where n > 1, with Student's interval over the differences.
RowDifference difference_over_seeds(std::span<const double> row, std::span<const double> baseline);

/// Of one run each, from a figure for every sample (n >= 2), with the normal interval of their differences' mean.
RowDifference difference_over_samples(std::span<const double> row, std::span<const double> baseline);

}  // namespace ermoe
