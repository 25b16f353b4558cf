#include "core/error.h"
#include "data/phantom.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace ermoe {
namespace {

constexpr double ventricle_depth_mm = 25;
constexpr float ventricle_darkness = 0.55f;  // of the brain's median; at 0.6 they join the cisterns behind the thalamus

constexpr int last_aal = 116, first_deep_grey = 71, last_deep_grey = 78;
constexpr double least_planted_ml = 1;

int aal_number(float value) {
  check_input(value <= static_cast<float>(last_aal), "the atlas has the number {}, AAL's end at {}", value, last_aal);
  return static_cast<int>(std::ceil(std::max(0.0f, value)));
}

/// Of each of AAL's numbers; 0 and what no region has: the last label.
std::array<float, last_aal + 1> labels_by_number(const std::vector<PhantomRegion>& regions) {
  std::array<float, last_aal + 1> labels{};
  labels.fill(static_cast<float>(regions.size()));
  for (size_t r = 0; r < regions.size(); ++r)
    for (const int n : regions[r].aal) labels[static_cast<size_t>(n)] = static_cast<float>(r + 1);
  return labels;
}

/// Calls `visit` with the index of each voxel that shares a face with p.
template <typename Visit>
void neighbours(const Grid& grid, int64_t p, const Visit& visit) {
  const int64_t nx = grid.size[0], nxy = nx * grid.size[1];
  const std::array<int64_t, 3> at{p % nx, p / nx % grid.size[1], p / nxy}, stride{1, nx, nxy};
  for (size_t a = 0; a < 3; ++a) {
    if (at[a] > 0) visit(p - stride[a]);
    if (at[a] + 1 < grid.size[a]) visit(p + stride[a]);
  }
}

/// Whether each voxel is at least `steps` steps along the axes from what is not brain.
std::vector<uint8_t> deep_inside(const Volume& brain, int64_t steps) {
  std::vector<uint8_t> deep(brain.values.size(), 1);
  std::vector<int64_t> front, next;
  for (size_t p = 0; p < deep.size(); ++p) {
    if (brain.values[p] > 0) continue;
    deep[p] = 0;
    front.push_back(static_cast<int64_t>(p));
  }
  for (int64_t s = 1; s < steps && !front.empty(); ++s) {
    next.clear();
    for (const int64_t p : front)
      neighbours(brain.grid, p, [&](int64_t q) {
        if (deep[static_cast<size_t>(q)] == 0) return;
        deep[static_cast<size_t>(q)] = 0;
        next.push_back(q);
      });
    std::swap(front, next);
  }
  return deep;
}

/// The largest connected piece of what is marked. Unmarks everything.
std::vector<int64_t> largest_piece(const Grid& grid, std::vector<uint8_t>& marked) {
  std::vector<int64_t> largest;
  for (size_t start = 0; start < marked.size(); ++start) {
    if (marked[start] == 0) continue;
    std::vector<int64_t> piece{static_cast<int64_t>(start)};
    marked[start] = 0;
    for (size_t n = 0; n < piece.size(); ++n)
      neighbours(grid, piece[n], [&](int64_t q) {
        if (marked[static_cast<size_t>(q)] == 0) return;
        marked[static_cast<size_t>(q)] = 0;
        piece.push_back(q);
      });
    if (piece.size() > largest.size()) largest = std::move(piece);
  }
  return largest;
}

float median_of_brain(const Volume& brain) {
  std::vector<float> inside;
  std::copy_if(brain.values.begin(), brain.values.end(), std::back_inserter(inside), [](float v) { return v > 0; });
  check_input(!inside.empty(), "the template has no brain: nothing in it is above 0");
  const auto middle = inside.begin() + static_cast<std::ptrdiff_t>(inside.size() / 2);
  std::nth_element(inside.begin(), middle, inside.end());
  return *middle;
}

void mark_ventricles(const Volume& brain, const Volume& atlas, float ventricles, Volume& map) {
  const float dark = ventricle_darkness * median_of_brain(brain);
  std::vector<uint8_t> marked = deep_inside(brain, std::llround(ventricle_depth_mm / brain.grid.spacing()[0]));
  for (size_t p = 0; p < marked.size(); ++p) {
    const int number = aal_number(atlas.values[p]);
    const bool may_be = number == 0 || (number >= first_deep_grey && number <= last_deep_grey);
    if (brain.values[p] >= dark || !may_be) marked[p] = 0;
  }
  for (const int64_t p : largest_piece(brain.grid, marked)) map.values[static_cast<size_t>(p)] = ventricles;
}

/// A planted region is there: whole, and not too small for the deformations.
void check_planted(const PhantomRegion& region, float label, const Volume& map, const Volume& atlas) {
  const auto voxels = std::count(map.values.begin(), map.values.end(), label);
  check_input(voxels > 0, "the template with its atlas has no {}: nothing to plant an effect of age in", region.name);
  for (const int n : region.aal) {
    if (is_of_the_map(region)) break;  // some atlases lack some of the cerebellum's
    bool found = false;
    for (size_t p = 0; p < map.values.size() && !found; ++p) found = map.values[p] == label && aal_number(atlas.values[p]) == n;
    check_input(found, "{}: AAL's number {} has no voxels in the template's brain", region.name, n);
  }
  const Point3 mm = map.grid.spacing();
  const double ml = static_cast<double>(voxels) * mm[0] * mm[1] * mm[2] / 1000;
  check_input(ml >= least_planted_ml, "{}: has {:.2f} ml in the template, and {} ml is the least that can be planted", region.name, ml,
              least_planted_ml);
}

}  // namespace

Volume phantom_region_map(const Volume& brain, const Volume& atlas, const std::vector<PhantomRegion>& plant) {
  check_input(brain.grid == atlas.grid, "template and atlas are not on one grid: {}x{}x{} and {}x{}x{} voxels, or other places",
              brain.grid.size[0], brain.grid.size[1], brain.grid.size[2], atlas.grid.size[0], atlas.grid.size[1], atlas.grid.size[2]);
  const std::vector<PhantomRegion> regions = phantom_regions(plant);
  const std::array<float, last_aal + 1> labels = labels_by_number(regions);
  Volume map{brain.grid, std::vector<float>(brain.values.size(), 0.0f)};
  for (size_t p = 0; p < map.values.size(); ++p)
    if (brain.values[p] > 0) map.values[p] = labels[static_cast<size_t>(aal_number(atlas.values[p]))];
  const auto ventricles = std::find_if(regions.begin(), regions.end(), [](const PhantomRegion& r) { return r.aal.empty(); });
  mark_ventricles(brain, atlas, static_cast<float>(ventricles - regions.begin() + 1), map);
  for (size_t r = 0; r < plant.size(); ++r) check_planted(plant[r], static_cast<float>(r + 1), map, atlas);
  return map;
}

}  // namespace ermoe
