// How good predicted numbers are, in the terms of brain age: the unit is years and what is predicted is an age, though nothing here
// insists on it. All of it is host arithmetic in double. Read next: tools/regression_report.h (in words, as a table and a picture).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace ermoe {

/// Both ends belong to it.
struct Interval {
  double low = 0, high = 0;
};

/// Percentile bootstrap (Efron & Tibshirani, "An introduction to the bootstrap", 1993, chapter 13): samples are drawn anew with
/// replacement, as though each were independent of the others. The draws depend on the seed alone.
struct BootstrapOptions {
  uint64_t seed = 0;
  int64_t replicates = 2000;
  double coverage = 0.95;
};

/// The errors of the samples whose true age is in [from, from + 10).
struct DecadeError {
  int64_t from = 0, count = 0;
  double mae = 0, mean_gap = 0;
};

struct RegressionMetrics {
  int64_t count = 0;
  double mae = 0;                    // mean |predicted - true|
  std::optional<double> mae_error;   // its standard error; nothing for one sample
  Interval mae_interval;             // by bootstrap
  double rmse = 0;                   // root of the mean (predicted - true)²
  std::optional<double> r;           // Pearson correlation of predicted and true; nothing where either is constant
  std::optional<double> r2;          // 1 - Σ(predicted - true)² / Σ(true - mean true)²; nothing where the truth is constant
  double mean_gap = 0;               // mean of predicted - true, the "brain age gap"
  std::optional<double> gap_age_r;   // Pearson correlation of that gap and the true age
  std::vector<DecadeError> decades;  // those that have samples, upwards
};

/// Of n samples. Throws `Error` for none, for two counts that differ, and for values that are not finite.
RegressionMetrics regression_metrics(std::span<const double> truth, std::span<const double> predicted,
                                     const BootstrapOptions& bootstrap = {});

/// Pearson's correlation; nothing for fewer than two pairs or where either side is constant.
std::optional<double> pearson(std::span<const double> x, std::span<const double> y);

/// Undoes what regression towards the mean does to predictions (the young look older, the old younger): of the line predicted =
/// intercept + slope · age through TRAINING subjects, corrected = (predicted - intercept) / slope, which needs no true age of whoever is
/// corrected. Cole et al., "Brain age predicts mortality", Molecular Psychiatry 23 (2018), as in de Lange & Cole, "Commentary:
/// Correction procedures in brain-age prediction", NeuroImage: Clinical 26 (2020). (Beheshti et al., NeuroImage: Clinical 24 (2019),
/// subtract a + b · true age, which makes errors look small by telling the answer.) The price: errors that are not bias grow by 1/slope.
struct BiasCorrection {
  double intercept = 0, slope = 0;

  /// False where predictions hardly follow age: below a slope of 0.1 the correction would be noise, enlarged tenfold.
  bool usable() const { return slope >= 0.1; }
  /// Throws `Error` where it is not usable.
  double operator()(double predicted) const;
};

/// The least-squares line. `truth` and `predicted` (n) are of training subjects alone, best predicted by models that were not trained on
/// them (out of fold): a model that knows its training subjects by heart shows no bias there. Not usable for fewer than three samples or
/// one age. Throws `Error` for counts that differ and values that are not finite.
BiasCorrection fit_bias(std::span<const double> truth, std::span<const double> predicted);

/// Who of two predictors of the same samples errs less.
struct PairedDifference {
  int64_t count = 0;
  double mean = 0;              // of |a - true| - |b - true|: below 0 where `a` is better
  std::optional<double> error;  // its standard error, of the differences; nothing for one sample
  Interval interval;            // by bootstrap over samples
  double better_share = 0;      // of samples for which `a` errs less, ties counted half
};

/// `a` and `b` (n) predict `truth` (n). Throws as `regression_metrics` does.
PairedDifference paired_difference(std::span<const double> truth, std::span<const double> a, std::span<const double> b,
                                   const BootstrapOptions& bootstrap = {});

/// Predictions as they are, beside what puts them into perspective.
struct RegressionReport {
  RegressionMetrics plain;
  std::optional<RegressionMetrics> corrected;  // the same samples after bias correction
  std::optional<double> mean_predictor_mae;    // of who says the training subjects' mean age to everyone
};

/// What a report is made from, n each. `corrected` may be empty where there is no usable correction, `training_means` where the
/// training ages are not known. In a cross-validation each sample's are those of the fold that it was held out from.
struct RegressionSamples {
  std::span<const double> truth, predicted, corrected = {}, training_means = {};
};

/// Throws as `regression_metrics` does.
RegressionReport regression_report(const RegressionSamples& samples, const BootstrapOptions& bootstrap = {});

}  // namespace ermoe
