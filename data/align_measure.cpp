#include "data/align_measure.h"

#include <algorithm>
#include <cmath>

namespace ermoe {
namespace {

constexpr int64_t kChunks = 32;  // sums are formed in this many parts whatever the threads, so that they round alike
constexpr int64_t kBins = 32;
constexpr double kLeastOverlap = 0.25;

/// Adds up `each(sums, i)` over i < n, chunk by chunk in parallel.
template <typename Sums, typename Each>
Sums add_up(int64_t n, const Each& each) {
  std::vector<Sums> parts(static_cast<size_t>(kChunks));
#pragma omp parallel for schedule(dynamic)
  for (int64_t c = 0; c < kChunks; ++c)
    for (int64_t i = c * n / kChunks; i < (c + 1) * n / kChunks; ++i) each(parts[static_cast<size_t>(c)], i);
  for (size_t c = 1; c < parts.size(); ++c) parts[0] += parts[c];
  return parts[0];
}

using Row12 = std::array<double, 12>;

/// The gradient of a moving sample by the 12 parameters; `v` is its place from the centre.
Row12 by_parameters(const Lattice::Sample& s, const Point3& v) {
  const Point3 g = {s.gx, s.gy, s.gz};
  Row12 j;
  for (size_t r = 0; r < 3; ++r) {
    for (size_t c = 0; c < 3; ++c) j[3 * r + c] = g[r] * v[c];
    j[9 + r] = g[r];
  }
  return j;
}

Point3 minus(const Point3& a, const Point3& b) { return {a[0] - b[0], a[1] - b[1], a[2] - b[2]}; }

/// A weighted sum of outer products.
struct Outer {
  std::array<Row12, 12> sums{};

  void add(const Row12& j, double weight) {
    for (size_t r = 0; r < 12; ++r) {
      const double scaled = weight * j[r];
      for (size_t c = 0; c < 12; ++c) sums[r][c] += scaled * j[c];
    }
  }
  void operator+=(const Outer& o) {
    for (size_t r = 0; r < 12; ++r)
      for (size_t c = 0; c < 12; ++c) sums[r][c] += o.sums[r][c];
  }
};

void add_row(Row12& to, const Row12& j, double weight) {
  for (size_t r = 0; r < 12; ++r) to[r] += weight * j[r];
}

/// What both measures share: the samples and the way from one to a place in the moving volume.
class SampledMeasure : public Measure {
 public:
  SampledMeasure(const FixedSamples& fixed, const Volume& moving) : fixed_(fixed), moving_(moving) {}

 protected:
  int64_t samples() const { return std::ssize(fixed_.values); }
  bool too_few(double n) const { return n < kLeastOverlap * static_cast<double>(samples()); }

  const FixedSamples& fixed_;
  Lattice moving_;
};

struct CorrelationSums {
  double n = 0, f = 0, ff = 0, m = 0, mm = 0, mf = 0;

  void add(double fixed, double moving) {
    n += 1, f += fixed, ff += fixed * fixed;
    m += moving, mm += moving * moving, mf += moving * fixed;
  }
  void operator+=(const CorrelationSums& o) { n += o.n, f += o.f, ff += o.ff, m += o.m, mm += o.mm, mf += o.mf; }
  double fixed_spread() const { return ff - f * f / n; }
  double moving_spread() const { return mm - m * m / n; }
  double correlation() const {
    const double spread = fixed_spread() * moving_spread();
    return spread > 0 ? (mf - m * f / n) / std::sqrt(spread) : 0;
  }
};

struct CorrelationSlopeSums {
  CorrelationSums values;
  Row12 j{}, jm{}, jf{};
  Outer jj;

  void operator+=(const CorrelationSlopeSums& o) {
    values += o.values;
    add_row(j, o.j, 1), add_row(jm, o.jm, 1), add_row(jf, o.jf, 1);
    jj += o.jj;
  }
};

/// With a = (m - mean)/|m - mean| and b of the fixed volume alike, the correlation is ab = 1 - |a - b|^2/2: least squares, whose
/// curvature after Gauss and Newton is (da)(da).
class Correlation final : public SampledMeasure {
 public:
  using SampledMeasure::SampledMeasure;

  double value(const Affine& transform) const override {
    const Affine to_voxel = moving_.to_voxel().after(transform);
    const auto sums = add_up<CorrelationSums>(samples(), [&](CorrelationSums& s, int64_t i) {
      const auto at = static_cast<size_t>(i);
      Lattice::Sample m;
      if (moving_.look_up(to_voxel(fixed_.points[at]), m)) s.add(fixed_.values[at], m.value);
    });
    return too_few(sums.n) ? -1 : sums.correlation();
  }

  MeasureSlope slope(const Affine& transform, const Point3& centre) const override {
    const auto sums = add_up<CorrelationSlopeSums>(samples(), [&](CorrelationSlopeSums& s, int64_t i) {
      const auto at = static_cast<size_t>(i);
      const Point3 y = transform(fixed_.points[at]);
      Lattice::Sample m;
      if (!moving_.look_up(moving_.to_voxel()(y), m)) return;
      s.values.add(fixed_.values[at], m.value);
      if (m.gx == 0 && m.gy == 0 && m.gz == 0) return;
      const Row12 j = by_parameters(m, minus(y, centre));
      add_row(s.j, j, 1), add_row(s.jm, j, m.value), add_row(s.jf, j, fixed_.values[at]);
      s.jj.add(j, 1);
    });
    return finish(sums);
  }

 private:
  MeasureSlope finish(const CorrelationSlopeSums& s) const {
    MeasureSlope out;
    out.value = too_few(s.values.n) ? -1 : s.values.correlation();
    const double n = s.values.n, ff = s.values.fixed_spread(), mm = s.values.moving_spread();
    if (!(ff > 0 && mm > 0)) return out;
    Row12 jm{};
    for (size_t r = 0; r < 12; ++r) {
      jm[r] = s.jm[r] - s.j[r] * s.values.m / n;
      out.gradient[r] = (s.jf[r] - s.j[r] * s.values.f / n) / std::sqrt(ff * mm) - out.value * jm[r] / mm;
    }
    for (size_t r = 0; r < 12; ++r)
      for (size_t c = 0; c < 12; ++c) out.curvature[r][c] = (s.jj.sums[r][c] - s.j[r] * s.j[c] / n - jm[r] * jm[c] / mm) / mm;
    return out;
  }
};

/// Weights of the four bins around `place` by the cubic B-spline, the first of them bin floor(place) - 1, and their derivatives.
struct SplineBins {
  int64_t first = 0;
  std::array<double, 4> weight{}, derivative{};

  explicit SplineBins(double place) {
    const double whole = std::floor(place), t = place - whole, u = 1 - t;
    first = static_cast<int64_t>(whole) - 1;
    weight = {u * u * u / 6, (4 - 6 * t * t + 3 * t * t * t) / 6, (4 - 6 * u * u + 3 * u * u * u) / 6, t * t * t / 6};
    derivative = {-u * u / 2, (3 * t - 4) * t / 2, (4 - 3 * u) * u / 2, t * t / 2};
  }
};

struct Histogram {
  double n = 0;
  std::array<std::array<double, kBins>, kBins> count{};  // (bin of fixed, bin of moving)

  void operator+=(const Histogram& o) {
    n += o.n;
    for (size_t f = 0; f < kBins; ++f)
      for (size_t m = 0; m < kBins; ++m) count[f][m] += o.count[f][m];
  }
};

/// A histogram read off: the information, how it grows with a count, and how widely the moving bins spread at a fixed one.
struct InformationTable {
  double information = 0;                                    // nats
  std::array<std::array<double, kBins>, kBins> log_ratio{};  // (fixed, moving) log p(f, m) / p(m)
  std::array<double, kBins> precision{};                     // (fixed) 1 / variance of m there less 1 / variance over all, at least 0

  explicit InformationTable(const Histogram& h) {
    std::array<double, kBins> all{};
    for (const auto& row : h.count)
      for (size_t m = 0; m < kBins; ++m) all[m] += row[m];
    const double spread = variance(all);
    for (size_t f = 0; f < kBins; ++f) {
      double row = 0;
      for (const double c : h.count[f]) row += c;
      if (row <= 0) continue;
      for (size_t m = 0; m < kBins; ++m) {
        const double c = h.count[f][m];
        if (all[m] > 0) log_ratio[f][m] = std::log(std::max(c, 1e-3) / all[m]);
        if (c > 0) information += c / h.n * std::log(c * h.n / (row * all[m]));
      }
      precision[f] = std::max(0.0, 1 / variance(h.count[f]) - 1 / spread);
    }
  }

 private:
  static double variance(const std::array<double, kBins>& count) {
    double n = 0, sum = 0, squares = 0;
    for (size_t m = 0; m < kBins; ++m) {
      n += count[m], sum += count[m] * static_cast<double>(m), squares += count[m] * static_cast<double>(m * m);
    }
    return std::max(1.0 / 3, squares / n - sum * sum / (n * n));  // the spline's own is a third
  }
};

struct InformationSlopeSums {
  Row12 gradient{};
  Outer curvature;

  void operator+=(const InformationSlopeSums& o) {
    add_row(gradient, o.gradient, 1);
    curvature += o.curvature;
  }
};

/// Mutual information from one set of samples with spline windows over the moving intensities (Mattes et al., "PET-CT image registration
/// in the chest using free-form deformations", 2003). The curvature is that of the likelihood of m given f, were it normal: the usual
/// product of first derivatives of the histogram nearly vanishes at the optimum and gives steps that are far too long.
class Information final : public SampledMeasure {
 public:
  Information(const FixedSamples& fixed, const Volume& moving) : SampledMeasure(fixed, moving), bins_(fixed.values.size()) {
    for (size_t i = 0; i < bins_.size(); ++i) {
      const double share =
          (static_cast<double>(fixed.values[i]) - fixed.low) / std::max(1e-30, static_cast<double>(fixed.high) - fixed.low);
      bins_[i] = static_cast<uint8_t>(std::clamp(share * kBins, 0.0, kBins - 1.0));
    }
    per_intensity_ = (kBins - 3 - 1e-6) / std::max(1e-30, static_cast<double>(moving_.high()) - moving_.low());
  }

  double value(const Affine& transform) const override {
    const Histogram h = histogram(transform);
    return too_few(h.n) ? -1 : InformationTable(h).information;
  }

  MeasureSlope slope(const Affine& transform, const Point3& centre) const override {
    const Histogram h = histogram(transform);
    MeasureSlope out;
    out.value = -1;
    if (too_few(h.n)) return out;
    const InformationTable table(h);
    const auto sums = add_up<InformationSlopeSums>(samples(), [&](InformationSlopeSums& s, int64_t i) {
      const auto at = static_cast<size_t>(i);
      const Point3 y = transform(fixed_.points[at]);
      Lattice::Sample m;
      if (!moving_.look_up(moving_.to_voxel()(y), m) || m.value > moving_.high()) return;
      if (m.gx == 0 && m.gy == 0 && m.gz == 0) return;
      const SplineBins bins(place(m.value));
      double growth = 0;
      for (size_t k = 0; k < 4; ++k) growth += bins.derivative[k] * table.log_ratio[bins_[at]][static_cast<size_t>(bins.first) + k];
      const Row12 j = by_parameters(m, minus(y, centre));
      add_row(s.gradient, j, growth);
      s.curvature.add(j, table.precision[bins_[at]]);
    });
    out.value = table.information;
    for (size_t r = 0; r < 12; ++r) {
      out.gradient[r] = sums.gradient[r] * per_intensity_ / h.n;
      for (size_t c = 0; c < 12; ++c) out.curvature[r][c] = sums.curvature.sums[r][c] * per_intensity_ * per_intensity_ / h.n;
    }
    return out;
  }

 private:
  /// In bins, such that the spline's four lie inside.
  double place(double intensity) const {
    return 1 + per_intensity_ * (std::clamp<double>(intensity, moving_.low(), moving_.high()) - moving_.low());
  }

  Histogram histogram(const Affine& transform) const {
    const Affine to_voxel = moving_.to_voxel().after(transform);
    return add_up<Histogram>(samples(), [&](Histogram& h, int64_t i) {
      const auto at = static_cast<size_t>(i);
      Lattice::Sample m;
      if (!moving_.look_up(to_voxel(fixed_.points[at]), m)) return;
      const SplineBins bins(place(m.value));
      for (size_t k = 0; k < 4; ++k) h.count[bins_[at]][static_cast<size_t>(bins.first) + k] += bins.weight[k];
      h.n += 1;
    });
  }

  std::vector<uint8_t> bins_;  // (n) of the fixed samples
  double per_intensity_ = 0;   // bins
};

}  // namespace

std::unique_ptr<Measure> make_measure(AlignMeasure kind, const FixedSamples& fixed, const Volume& moving) {
  if (kind == AlignMeasure::correlation) return std::make_unique<Correlation>(fixed, moving);
  return std::make_unique<Information>(fixed, moving);
}

}  // namespace ermoe
