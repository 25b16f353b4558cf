#include "tools/specialisation.h"

#include "core/error.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace ermoe {
namespace {

constexpr double rounding = 1e-9;  // relative: sums in another order are not larger

struct Margins {
  std::vector<double> experts, regions;
  double all = 0;
};

Margins margins_of(std::span<const double> joint, size_t experts) {
  const size_t regions = joint.size() / experts;
  Margins m{std::vector<double>(experts), std::vector<double>(regions)};
  for (size_t e = 0; e < experts; ++e)
    for (size_t r = 0; r < regions; ++r) {
      const double weight = joint[e * regions + r];
      m.experts[e] += weight;
      m.regions[r] += weight;
      m.all += weight;
    }
  return m;
}

/// What stays in every draw (the sum over subjects of load times region's share), and each subject's deviation from it.
struct Split {
  std::vector<double> still;
  std::vector<std::vector<double>> deviations;
};

Split split_of(const std::vector<std::vector<double>>& joints, size_t experts) {
  Split split{std::vector<double>(joints[0].size()), {}};
  for (const std::vector<double>& joint : joints) {
    const Margins m = margins_of(joint, experts);
    const size_t regions = m.regions.size();
    std::vector<double> deviation(joint.size());
    for (size_t c = 0; m.all > 0 && c < joint.size(); ++c) {
      const double independent = m.experts[c / regions] * m.regions[c % regions] / m.all;
      split.still[c] += independent;
      deviation[c] = joint[c] - independent;
    }
    split.deviations.push_back(std::move(deviation));
  }
  return split;
}

/// The sum over subjects with the deviations' signs of this draw.
std::vector<double> drawn(const Split& split, RngKey key) {
  std::vector<double> joint = split.still;
  for (size_t i = 0; i < split.deviations.size(); ++i) {
    const double sign = (philox(key, i).x[0] & 1) != 0 ? 1 : -1;
    for (size_t c = 0; c < joint.size(); ++c) joint[c] += sign * split.deviations[i][c];
  }
  return joint;
}

double share_of(double part, double whole) { return whole > 0 ? part / whole : 0; }

/// Means, deviations and p of every cell's share, from the shares of all draws.
class CellSums {
 public:
  CellSums(const std::vector<double>& seen, size_t experts)
      : experts_(experts), seen_(shares(seen)), sum_(seen.size()), squares_(seen.size()), reached_(seen.size()) {}

  void add(const std::vector<double>& joint) {
    const std::vector<double> now = shares(joint);
    for (size_t c = 0; c < now.size(); ++c) {
      const double apart = now[c] - seen_[c];  // sums of small numbers
      sum_[c] += apart;
      squares_[c] += apart * apart;
      reached_[c] += now[c] >= seen_[c] - rounding * std::abs(seen_[c]) ? 1 : 0;
    }
    ++draws_;
  }

  std::vector<ExpertRegion> cells(const Margins& m) const {
    std::vector<ExpertRegion> all;
    const double n = std::max<double>(1, draws_);
    for (size_t c = 0; c < seen_.size(); ++c) {
      const double mean = sum_[c] / n;
      all.push_back({.share = seen_[c],
                     .region_share = share_of(m.regions[c % m.regions.size()], m.all),
                     .null_mean = seen_[c] + mean,
                     .null_deviation = std::sqrt(std::max(0.0, squares_[c] / n - mean * mean)),
                     .p = (1 + reached_[c]) / (1 + draws_)});
    }
    return all;
  }

 private:
  /// Of each expert's weight, by region.
  std::vector<double> shares(const std::vector<double>& joint) const {
    const Margins m = margins_of(joint, experts_);
    std::vector<double> all;
    for (size_t c = 0; c < joint.size(); ++c) all.push_back(share_of(joint[c], m.experts[c / m.regions.size()]));
    return all;
  }

  size_t experts_;
  std::vector<double> seen_, sum_, squares_, reached_;
  double draws_ = 0;
};

}  // namespace

double p_value(double seen, std::span<const double> null) {
  const auto reached = std::ranges::count_if(null, [&](double v) { return v >= seen - rounding * std::abs(seen); });
  return static_cast<double>(1 + reached) / static_cast<double>(1 + null.size());
}

double mean_of(std::span<const double> values) {
  return values.empty() ? 0 : std::reduce(values.begin(), values.end()) / static_cast<double>(values.size());
}

double mutual_information(std::span<const double> joint, int64_t experts) {
  const Margins m = margins_of(joint, static_cast<size_t>(experts));
  double information = 0;
  for (size_t c = 0; c < joint.size(); ++c) {
    const double alone = m.experts[c / m.regions.size()] * m.regions[c % m.regions.size()];
    // A draw of few subjects may leave a cell below 0: it holds nothing then.
    if (joint[c] > 0 && alone > 0) information += joint[c] / m.all * std::log(joint[c] * m.all / alone);
  }
  return information;
}

Specialisation specialisation(const std::vector<std::vector<double>>& joints, int64_t experts, int64_t draws, RngKey key) {
  check(!joints.empty() && experts > 0, "[specialisation] of {} subjects and {} experts", joints.size(), experts);
  std::vector<double> seen(joints[0].size());
  for (const std::vector<double>& joint : joints) {
    check(joint.size() == seen.size(), "[specialisation] tables of {} and {} cells", joint.size(), seen.size());
    std::ranges::transform(seen, joint, seen.begin(), std::plus{});
  }
  const Split split = split_of(joints, static_cast<size_t>(experts));
  Specialisation result;
  result.information = mutual_information(seen, experts);
  CellSums sums(seen, static_cast<size_t>(experts));
  for (int64_t draw = 0; draw < draws; ++draw) {
    const std::vector<double> joint = drawn(split, key.fold(static_cast<uint64_t>(draw)));
    result.null.push_back(mutual_information(joint, experts));
    sums.add(joint);
  }
  result.cells = sums.cells(margins_of(seen, static_cast<size_t>(experts)));
  return result;
}

std::vector<std::vector<double>> parts_of(const std::vector<std::vector<double>>& joints, const std::vector<bool>& experts,
                                          const std::vector<bool>& regions) {
  std::vector<std::vector<double>> parts;
  for (const std::vector<double>& joint : joints) {
    check(joint.size() == experts.size() * regions.size(), "[specialisation] a table of {} cells", joint.size());
    std::vector<double>& part = parts.emplace_back();
    for (size_t c = 0; c < joint.size(); ++c)
      if (experts[c / regions.size()] && regions[c % regions.size()]) part.push_back(joint[c]);
  }
  return parts;
}

}  // namespace ermoe
