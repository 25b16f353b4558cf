#include "tools/attribution.h"

#include "core/error.h"
#include "tools/smooth_maps.h"
#include "tools/specialisation.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <numeric>
#include <set>

namespace ermoe {
namespace {

constexpr double least_brain = 0.25;  // of a place's voxels, for the place to count as brain in the null

/// One part as the null sees it: its places in the brain, and what each set of regions has there.
struct Places {
  MapOnPlaces map;
  std::vector<std::vector<double>> weights;  // (sets, places) voxels
  std::vector<double> brain;                 // (places) voxels
};

/// Sets of labels: each alone, then the planted ones together.
using LabelSets = std::vector<std::set<int64_t>>;

/// `map` (cubes): a mean over the part's subjects.
Places places_of(const Attribution& part, const std::vector<double>& map, const LabelSets& sets) {
  Places places{.map = MapOnPlaces(part.grid, part.spacing), .weights = {}, .brain = {}};
  places.weights.resize(sets.size());
  const size_t R = part.labels.size();
  const double full = std::pow(static_cast<double>(part.grid.side), 3) * static_cast<double>(part.subjects);
  for (int64_t cube = 0; cube < part.grid.count(); ++cube) {
    const double* const own = part.voxels.data() + static_cast<size_t>(cube) * R;
    double brain = 0;
    for (size_t r = 0; r < R; ++r) brain += part.labels[r] > 0 ? own[r] : 0;
    if (brain < least_brain * full) continue;
    places.map.cube.push_back(cube);
    places.map.value.push_back(map[static_cast<size_t>(cube)]);
    places.brain.push_back(brain);
    for (size_t s = 0; s < sets.size(); ++s) {
      double in_set = 0;
      for (size_t r = 0; r < R; ++r) in_set += sets[s].contains(part.labels[r]) ? own[r] : 0;
      places.weights[s].push_back(in_set);
    }
  }
  return places;
}

/// Where the parts' places have these values: what falls on each set, (sets), and on the brain.
struct Sums {
  std::vector<double> sets;
  double brain = 0;
};

Sums sums_of(const std::vector<Places>& parts, const std::vector<std::vector<double>>& values) {
  Sums sums{.sets = std::vector<double>(parts.at(0).weights.size()), .brain = 0};
  for (size_t f = 0; f < parts.size(); ++f) {
    const std::vector<double>& v = values[f];
    sums.brain += std::inner_product(v.begin(), v.end(), parts[f].brain.begin(), 0.0);
    for (size_t s = 0; s < sums.sets.size(); ++s) sums.sets[s] += std::inner_product(v.begin(), v.end(), parts[f].weights[s].begin(), 0.0);
  }
  return sums;
}

/// What a map shows beside what chance would.
struct Compared {
  std::vector<double> seen,
      p;              // of each set: its share of what falls on the brain (0 where that is not above 0), and p of what falls on it
  double length = 0;  // of the fields
};

using MapOf = std::function<std::vector<double>(const Attribution&)>;

Compared compare(std::span<const Attribution> parts, const MapOf& map_of, const LabelSets& sets, int64_t draws, RngKey key) {
  std::vector<Places> places;
  std::vector<MapOnPlaces> maps;
  std::vector<std::vector<double>> values;
  for (const Attribution& part : parts) {
    places.push_back(places_of(part, map_of(part), sets));
    maps.push_back(places.back().map);
    values.push_back(places.back().map.value);
  }
  const Sums seen = sums_of(places, values);
  Compared compared{.seen = seen.sets, .p = {}, .length = smoothness_of(maps)};
  for (double& share : compared.seen) share = seen.brain > 0 ? share / seen.brain : 0;
  std::vector<std::vector<double>> null(sets.size());
  for (int64_t draw = 0; draw < draws; ++draw) {
    const RngKey own = key.fold(static_cast<uint64_t>(draw));
    for (size_t f = 0; f < maps.size(); ++f) values[f] = surrogate_of(maps[f], compared.length, own);
    const Sums drawn = sums_of(places, values);
    for (size_t s = 0; s < sets.size(); ++s) null[s].push_back(drawn.sets[s]);
  }
  for (size_t s = 0; s < sets.size(); ++s) compared.p.push_back(seen.brain > 0 ? p_value(seen.sets[s], null[s]) : 1);
  return compared;
}

std::vector<double> mean_size(const Attribution& part) {
  std::vector<double> mean = part.size;
  for (double& v : mean) v /= static_cast<double>(part.subjects);
  return mean;
}

struct RegionSums {
  double attribution = 0, change = 0, voxels = 0;
  double whole = 0, subjects = 0;  // of the parts that know the region
};

std::map<int64_t, RegionSums> region_sums(std::span<const Attribution> parts) {
  std::map<int64_t, RegionSums> sums;
  for (const Attribution& part : parts)
    for (size_t r = 0; r < part.labels.size(); ++r) {
      RegionSums& sum = sums[part.labels[r]];
      sum.attribution += part.by_region[r];
      sum.change += part.change_by_region[r];
      sum.whole += part.whole[r];
      sum.subjects += static_cast<double>(part.subjects);
      for (size_t at = r; at < part.voxels.size(); at += part.labels.size()) sum.voxels += part.voxels[at];
    }
  return sums;
}

}  // namespace

Attribution::Attribution(const CubeGrid& cubes, double mm, std::vector<int64_t> known_labels)
    : grid(cubes),
      spacing(mm),
      labels(std::move(known_labels)),
      size(static_cast<size_t>(cubes.count())),
      change(size.size()),
      voxels(size.size() * labels.size()),
      by_region(labels.size()),
      change_by_region(labels.size()),
      whole(labels.size()),
      with_truth(size.size()) {}

void Attribution::add(double number, std::span<const double> changes, std::span<const double> region_counts,
                      std::span<const double> region_changes) {
  const size_t R = labels.size();
  check(changes.size() == size.size() && region_counts.size() == voxels.size() && region_changes.size() == R,
        "[attribution] {} changes and {} counts for {} cubes, and {} changes for {} regions", changes.size(), region_counts.size(),
        size.size(), region_changes.size(), R);
  for (size_t r = 0; r < R; ++r) whole[r] += std::abs(region_changes[r]);
  for (size_t cube = 0; cube < size.size(); ++cube) {
    size[cube] += std::abs(changes[cube]);
    change[cube] += changes[cube];
    with_truth[cube] += changes[cube] * number;
    for (size_t r = 0; r < R; ++r) {
      voxels[cube * R + r] += region_counts[cube * R + r];
      by_region[r] += std::abs(changes[cube]) * region_counts[cube * R + r];
      change_by_region[r] += changes[cube] * region_counts[cube * R + r];
    }
  }
  truth += number;
  truth_squares += number * number;
  ++subjects;
}

std::vector<double> Attribution::slopes() const {
  const double n = static_cast<double>(std::max<int64_t>(1, subjects)), spread = truth_squares - truth * truth / n;
  std::vector<double> all(size.size());
  if (spread <= 1e-12 * truth_squares) return all;
  for (size_t cube = 0; cube < all.size(); ++cube) all[cube] = -(with_truth[cube] - change[cube] * truth / n) / spread;
  return all;
}

AttributionReport attribution_report(std::span<const Attribution> parts, const std::vector<int64_t>& planted, int64_t draws, RngKey key) {
  const std::map<int64_t, RegionSums> sums = region_sums(parts);
  RegionSums brain;
  for (const auto& [label, sum] : sums)
    if (label > 0) brain.attribution += sum.attribution, brain.voxels += sum.voxels;
  AttributionReport report;
  const double outside = sums.contains(0) ? sums.at(0).attribution : 0;
  if (outside > 0) report.background = outside / (outside + brain.attribution);
  LabelSets sets;
  RegionAttribution together;
  for (const auto& [label, sum] : sums) {
    if (label == 0 || brain.voxels == 0) continue;
    const RegionAttribution one{.label = label,
                                .share = brain.attribution > 0 ? sum.attribution / brain.attribution : 0,
                                .volume = sum.voxels / brain.voxels,
                                .change = sum.voxels > 0 ? sum.change / sum.voxels : 0,
                                .whole = sum.subjects > 0 ? sum.whole / sum.subjects : 0};
    report.regions.push_back(one);
    sets.push_back({label});
    if (!std::ranges::binary_search(planted, label)) continue;
    together.change = (together.change * together.volume + one.change * one.volume) / (together.volume + one.volume);
    together.share += one.share;
    together.whole += one.whole;
    together.volume += one.volume;
  }
  if (report.regions.empty()) return report;
  sets.emplace_back(planted.begin(), planted.end());
  const Compared sizes = compare(parts, mean_size, sets, draws, key);
  const Compared slopes = compare(parts, std::mem_fn(&Attribution::slopes), sets, draws, key.fold(draws));
  const auto complete = [&](RegionAttribution& region, size_t set) {
    region.p = sizes.p[set];
    region.slope_share = slopes.seen[set];
    region.slope_p = slopes.p[set];
  };
  for (size_t r = 0; r < report.regions.size(); ++r) complete(report.regions[r], r);
  complete(together, sets.size() - 1);
  report.smoothness_mm = sizes.length;
  if (together.volume > 0) report.planted = together;
  return report;
}

}  // namespace ermoe
