#include "data/phantom_growth.h"

#include "core/error.h"
#include "data/volume_grid.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

namespace ermoe {
namespace {

using Matrix = std::vector<std::vector<double>>;

/// By label, the share of the fine points around each coarse one that have it. Points outside of the template are no brain.
std::vector<std::vector<float>> label_shares(size_t regions, const Lattice& fine, const std::vector<float>& labels, const Lattice& coarse) {
  std::vector<std::vector<float>> shares(regions + 1, std::vector<float>(static_cast<size_t>(coarse.points()), 0.0f));
  std::vector<float> count(static_cast<size_t>(coarse.points()), 0.0f);
  const auto near = [&](int64_t i) { return std::llround(static_cast<double>(i) * fine.step / coarse.step); };
  for (int64_t p = 0; p < fine.points(); ++p) {
    const int64_t i = p % fine.size[0], j = p / fine.size[0] % fine.size[1], k = p / (fine.size[0] * fine.size[1]);
    const auto q = static_cast<size_t>(coarse.index(near(i), near(j), near(k)));
    shares[static_cast<size_t>(labels[static_cast<size_t>(p)])][q] += 1;
    count[q] += 1;
  }
  for (size_t q = 0; q < count.size(); ++q) {
    if (count[q] == 0) shares[0][q] = 1;
    for (std::vector<float>& share : shares) share[q] /= std::max(count[q], 1.0f);
  }
  return shares;
}

/// A velocity of constant divergence in the region, and a negative one near it where no label is. Around the cortex that is mostly
/// outside the brain: that moves with the brain's surface.
VectorField growth_of(const std::string& name, size_t label, const std::vector<std::vector<float>>& shares, const Lattice& coarse) {
  constexpr double reach_mm = 9;
  constexpr float tissue = 0.15f;  // gives way this much less than the outside
  const std::vector<float>& share = shares[label];
  const double sigma = reach_mm / coarse.step;
  std::vector<float> yields = smooth({{coarse.size, {}}, share}, {sigma, sigma, sigma}).values;
  double grown = 0, given = 0;
  for (size_t p = 0; p < yields.size(); ++p) {
    yields[p] *= shares.front()[p] + tissue * shares.back()[p];
    grown += static_cast<double>(share[p]);
    given += static_cast<double>(yields[p]);
  }
  check_input(given > 0, "around the template's {} there is nothing that could give way to it", name);
  std::vector<float> divergence = share;
  for (size_t p = 0; p < yields.size(); ++p) divergence[p] -= yields[p] * static_cast<float>(grown / given);
  return field_of_divergence(coarse, divergence);
}

/// Some 20,000 places in a region: every so manieth voxel's middle of a large one, the middles of voxels' eighths in a small one.
std::vector<Point3> places_in(float label, const Lattice& fine, const std::vector<float>& labels) {
  constexpr int64_t enough = 20000;
  const auto voxels = std::count(labels.begin(), labels.end(), label);
  const int64_t every = std::max<int64_t>(1, voxels / enough);
  const std::vector<double> offsets = 4 * voxels < enough ? std::vector<double>{-0.25, 0.25} : std::vector<double>{0};
  std::vector<Point3> places;
  int64_t seen = 0;
  for (int64_t p = 0; p < fine.points(); ++p) {
    if (labels[static_cast<size_t>(p)] != label || seen++ % every != 0) continue;
    const std::array<int64_t, 3> at{p % fine.size[0], p / fine.size[0] % fine.size[1], p / (fine.size[0] * fine.size[1])};
    const auto mm = [&](size_t axis, double offset) { return (static_cast<double>(at[axis]) + offset) * fine.step; };
    for (const double x : offsets)
      for (const double y : offsets)
        for (const double z : offsets) places.push_back({mm(0, x), mm(1, y), mm(2, z)});
  }
  return places;
}

/// By Gauss-Jordan elimination; the matrix is close to a diagonal one.
Matrix inverse_of(Matrix m, const std::vector<PhantomRegion>& regions) {
  const size_t n = m.size();
  Matrix inverse(n, std::vector<double>(n, 0.0));
  for (size_t i = 0; i < n; ++i) inverse[i][i] = 1;
  for (size_t i = 0; i < n; ++i) {
    const double pivot = m[i][i];
    check_input(std::abs(pivot) > 1e-6, "{}: is too thin to be made to grow", regions[i].name);
    for (size_t c = 0; c < n; ++c) {
      m[i][c] /= pivot;
      inverse[i][c] /= pivot;
    }
    for (size_t r = 0; r < n; ++r) {
      const double f = m[r][i];
      if (r == i) continue;
      for (size_t c = 0; c < n; ++c) {
        m[r][c] -= f * m[i][c];
        inverse[r][c] -= f * inverse[i][c];
      }
    }
  }
  return inverse;
}

/// What the logarithm of each region's volume gains by each field, to first order: the field's mean divergence over the region.
Matrix gains(const std::vector<VectorField>& fields, const std::vector<std::vector<Point3>>& places) {
  Matrix gain(places.size(), std::vector<double>(fields.size(), 0.0));
  for (size_t u = 0; u < places.size(); ++u) {
    if (places[u].empty()) gain[u][u] = 1;
    for (size_t s = 0; s < fields.size() && !places[u].empty(); ++s) {
      double sum = 0;
      for (const Point3& place : places[u]) sum += divergence(fields[s], place);
      gain[u][s] = sum / static_cast<double>(places[u].size());
    }
  }
  return gain;
}

}  // namespace

PhantomGrowth plan_growth(const std::vector<PhantomRegion>& plant, const Lattice& fine, const std::vector<float>& labels,
                          const Lattice& coarse) {
  const std::vector<PhantomRegion> regions = phantom_regions(plant);
  const std::vector<std::vector<float>> shares = label_shares(regions.size(), fine, labels, coarse);
  const size_t labelled = regions.size() - 1;  // the last gives way
  std::vector<VectorField> fields;
  std::vector<std::vector<Point3>> places;
  for (size_t r = 0; r < labelled; ++r) {
    places.push_back(places_in(static_cast<float>(r + 1), fine, labels));
    fields.push_back(places.back().empty() ? VectorField(coarse) : growth_of(regions[r].name, r + 1, shares, coarse));
  }
  // The lattice blurs borders: a thin region feels less than its field's divergence, its neighbours feel some of it. Fields are mixed
  // such that each planted region feels 1 of its own and nothing else of the others.
  const Matrix mix = inverse_of(gains(fields, places), regions);
  PhantomGrowth plan;
  for (size_t r = 0; r < plant.size(); ++r) {
    VectorField field(coarse);
    for (size_t s = 0; s < labelled; ++s) field.add(fields[s], mix[s][r]);
    plan.fields.push_back(std::move(field));
    plan.places.push_back(std::move(places[r]));
  }
  return plan;
}

}  // namespace ermoe
