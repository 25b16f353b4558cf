#include "tools/age_scatter.h"

#include "core/error.h"
#include "tools/chart.h"

#include <algorithm>
#include <cmath>

namespace ermoe {
namespace {

constexpr Color kPaper{250, 250, 247}, kInk{38, 42, 50}, kSoft{112, 118, 128}, kGrid{226, 226, 220}, kIdentity{120, 124, 132};
constexpr Color kPoint{62, 116, 196}, kTrend{206, 50, 58};
constexpr int64_t kPane = 460, kLeft = 84, kRight = 28, kTop = 112, kBottom = 92, kText = 2, kRadius = 5;

struct Points {
  std::string head;
  std::vector<double> truth, predicted;
};

/// Multiples of `step` from first to last of them.
struct Scale {
  double step = 1;
  int64_t first = 0, last = 1;

  double low() const { return static_cast<double>(first) * step; }
  double high() const { return static_cast<double>(last) * step; }
  /// Pixels from the pane's low end.
  int64_t place(double value) const { return std::llround((value - low()) / (high() - low()) * static_cast<double>(kPane)); }
};

/// The smallest of 1, 2, 5, 10, … and their parts that cuts the range into at most eight.
Scale scale_of(const std::vector<Points>& panes) {
  double low = panes[0].truth.at(0), high = low;
  for (const Points& points : panes) {
    for (const auto* values : {&points.truth, &points.predicted}) {
      for (const double value : *values) {
        check(std::isfinite(value), "[age_scatter] an age of {}", value);
        low = std::min(low, value);
        high = std::max(high, value);
      }
    }
  }
  const double range = std::max({high - low, 10.0, 1e-9 * std::abs(low)});  // one subject makes a picture too
  double step = std::pow(10.0, std::floor(std::log10(range / 8)));
  for (const double wider : {2.0, 2.5, 2.0})
    if (range / step > 8) step *= wider;
  const auto first = static_cast<int64_t>(std::floor(low / step)), last = static_cast<int64_t>(std::ceil(high / step));
  return {step, first, std::max(last, first + 1)};
}

class Pane {
 public:
  Pane(Canvas& canvas, int64_t left, int64_t top, const Scale& scale) : canvas_(canvas), left_(left), top_(top), scale_(scale) {}

  void draw(const Points& points) {
    axes();
    canvas_.text(left_, top_ - 56, points.head, kInk, kText);
    canvas_.text(left_, top_ - 30, "predicted age (years)", kSoft, kText);
    const std::string below = "true age (years)";
    canvas_.text(left_ + (kPane - text_width(below, kText)) / 2, top_ + kPane + 38, below, kSoft, kText);
    line(1, 0, kIdentity, kPane);
    const BiasCorrection trend = fit_bias(points.truth, points.predicted);
    if (points.truth.size() > 2) line(trend.slope, trend.intercept, kTrend, 8);
    for (size_t i = 0; i < points.truth.size(); ++i) dot(scale_.place(points.truth[i]), scale_.place(points.predicted[i]));
    canvas_.frame({left_, top_, kPane + 1, kPane + 1}, kSoft);
  }

 private:
  void axes() {
    for (int64_t k = scale_.first; k <= scale_.last; ++k) {
      const double value = static_cast<double>(k) * scale_.step;
      const int64_t at = scale_.place(value);
      canvas_.fill({left_ + at, top_, 1, kPane}, kGrid);
      canvas_.fill({left_, top_ + kPane - at, kPane, 1}, kGrid);
      canvas_.fill({left_ + at, top_ + kPane, 1, 7}, kSoft);
      canvas_.fill({left_ - 6, top_ + kPane - at, 7, 1}, kSoft);
      const std::string label = fmt::format("{:g}", value);
      const int64_t width = text_width(label, kText);
      canvas_.text(left_ + at - width / 2, top_ + kPane + 12, label, kInk, kText);
      canvas_.text(left_ - 12 - width, top_ + kPane - at - kText * 4, label, kInk, kText);
    }
  }

  /// predicted = slope · age + intercept, in dashes of `dash` pixels.
  void line(double slope, double intercept, Color color, int64_t dash) {
    const int64_t parts = 2 * kPane;  // steep lines want more than a point a column
    for (int64_t i = 0; i <= parts; ++i) {
      const double share = static_cast<double>(i) / static_cast<double>(parts);
      const double age = scale_.low() + share * (scale_.high() - scale_.low()), predicted = slope * age + intercept;
      if (predicted < scale_.low() || predicted > scale_.high() || i / 2 / dash % 2 == 1) continue;
      canvas_.fill({left_ + scale_.place(age) - 1, top_ + kPane - scale_.place(predicted) - 1, 2, 2}, color);
    }
  }

  /// Light inside, so that points on top of each other are seen.
  void dot(int64_t x, int64_t y) {
    for (int64_t dy = -kRadius; dy <= kRadius; ++dy) {
      const auto half = std::llround(std::sqrt(static_cast<double>(kRadius * kRadius - dy * dy)));
      const Rect row{left_ + x - half, top_ + kPane - y + dy, 2 * half + 1, 1};
      canvas_.tint(row, kPoint, 0.5);
      canvas_.tint({row.x, row.y, 2, 1}, kPoint, 0.8);
      canvas_.tint({row.x + row.width - 2, row.y, 2, 1}, kPoint, 0.8);
      if (std::abs(dy) == kRadius) canvas_.tint(row, kPoint, 0.6);
    }
  }

  Canvas& canvas_;
  int64_t left_, top_;
  const Scale& scale_;
};

Points points_of(const std::string& name, std::vector<double> truth, std::vector<double> predicted) {
  const RegressionMetrics m = regression_metrics(truth, predicted, {.replicates = 1});
  return {.head = fmt::format("{}: MAE {:.2f}, r {}", name, m.mae, m.r ? fmt::format("{:.3f}", *m.r) : "undefined"),
          .truth = std::move(truth),
          .predicted = std::move(predicted)};
}

std::vector<Points> panes_of(std::span<const AgePrediction> predictions) {
  std::vector<double> truth, predicted, corrected;
  for (const AgePrediction& p : predictions) {
    truth.push_back(p.age);
    predicted.push_back(p.predicted);
    if (p.corrected) corrected.push_back(*p.corrected);
  }
  std::vector<Points> panes{points_of("as predicted", truth, predicted)};
  if (corrected.size() == truth.size()) panes.push_back(points_of("bias-corrected", truth, corrected));
  return panes;
}

}  // namespace

Image age_scatter(std::span<const AgePrediction> predictions, const std::string& title) {
  const std::vector<Points> panes = panes_of(predictions);
  const Scale scale = scale_of(panes);
  const int64_t width = kLeft + kPane + kRight;
  Canvas canvas(width * std::ssize(panes), kTop + kPane + kBottom, kPaper);
  canvas.text(kLeft, 18, fmt::format("{} ({} volumes)", title, predictions.size()), kInk, kText);
  canvas.text(kLeft, kTop + kPane + 66, "solid: predicted = true age, dashed: fit", kSoft, kText);
  for (size_t i = 0; i < panes.size(); ++i) Pane(canvas, kLeft + static_cast<int64_t>(i) * width, kTop, scale).draw(panes[i]);
  return canvas.image();
}

}  // namespace ermoe
