// The picture of predicted over true ages, with the identity line. Read next: tools/chart.h, data/encode_png.h.
#pragma once

#include "data/image.h"
#include "tools/regression_report.h"

#include <span>
#include <string>

namespace ermoe {

/// A point a volume: true age to the right, predicted age upwards, on the same scale, so that the identity line is the diagonal and the
/// distance from it upwards or downwards the error. Where all have corrected ages, they have a pane of their own beside the first. Drawn
/// solid: the identity; dashed: the line of predicted over true age. Throws `Error` for no predictions and values that are not finite.
Image age_scatter(std::span<const AgePrediction> predictions, const std::string& title);

}  // namespace ermoe
