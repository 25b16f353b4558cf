// Whether experts keep to regions: how much of each expert's weight falls into each region, the mutual information of both, and what
// chance alone would give. Read first: tools/region_shares.h; next: tools/looks.h.
//
// The null hypothesis is that experts do not prefer the same regions from subject to subject. A subject's table of weights, expert by
// region, is what independence within that subject would give (its experts' loads times its regions' shares) plus a deviation. Where the
// hypothesis holds, a deviation might as well have come with the other sign: so whole subjects' deviations change their sign at random,
// as in one-sample permutation tests of brain images (Nichols and Holmes, Human Brain Mapping 2002). Tokens of one image depend on each
// other and brains are alike, and none of this matters: a subject's deviation stays whole, and its loads and anatomy stay its own.
// Permuting the experts' names in each subject, the other test that comes to mind, makes all experts equally busy as well: where they are
// not, it compares with tables of other loads.
#pragma once

#include "core/rng.h"

#include <cstdint>
#include <span>
#include <vector>

namespace ermoe {

/// Of one expert and one region.
struct ExpertRegion {
  double share = 0;         // of the expert's weight that falls into the region
  double region_share = 0;  // of all experts' weight
  double null_mean = 0, null_deviation = 0;
  double p = 1;  // that chance alone gives so large a share, or a larger one

  /// share / region_share; 1 where the region has nothing.
  double ratio() const { return region_share > 0 ? share / region_share : 1; }
};

struct Specialisation {
  std::vector<ExpertRegion> cells;  // (E, R)
  double information = 0;           // mutual information of expert and region, nats
  std::vector<double> null;         // the same of each draw
};

/// (1 + draws that are at least `seen`) / (1 + draws).
double p_value(double seen, std::span<const double> null);
double mean_of(std::span<const double> values);

/// Nats, of non-negative weights (E, R) of any sum; 0 where the sum is 0.
double mutual_information(std::span<const double> joint, int64_t experts);

/// `joints`: a table of weights (E, R) for each subject. With n subjects p cannot fall below about 2 / 2^n.
Specialisation specialisation(const std::vector<std::vector<double>>& joints, int64_t experts, int64_t draws, RngKey key);

/// Of tables (E, R), the rows and columns to be kept.
std::vector<std::vector<double>> parts_of(const std::vector<std::vector<double>>& joints, const std::vector<bool>& experts,
                                          const std::vector<bool>& regions);

}  // namespace ermoe
