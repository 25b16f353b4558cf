#include "core/error.h"
#include "data/phantom.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace ermoe {
namespace {

constexpr std::array<PhantomRegion, 10> regions{{{1, "ventricles", 0.015},
                                                 {2, "hippocampus", -0.005},
                                                 {3, "frontal", -0.003},
                                                 {4, "temporal", -0.003},
                                                 {5, "parietal"},
                                                 {6, "occipital"},
                                                 {7, "limbic_insula"},
                                                 {8, "deep_grey"},
                                                 {9, "cerebellum"},
                                                 {10, "white_matter_other"}}};
constexpr int ventricles = 1, deep_grey = 8, unlabelled = 10;
constexpr double ventricle_depth_mm = 25;
constexpr float ventricle_darkness = 0.55f;  // of the brain's median; at 0.6 they join the cisterns behind the thalamus

/// Of AAL's numbers up to and including each.
struct Upto {
  int last;
  int label;
};
constexpr std::array<Upto, 10> aal{
    {{0, unlabelled}, {28, 3}, {36, 7}, {38, 2}, {42, 7}, {56, 6}, {70, 5}, {78, deep_grey}, {90, 4}, {116, 9}}};

int label_of(float aal_number) {
  for (const Upto& range : aal)
    if (aal_number <= static_cast<float>(range.last)) return range.label;
  fail_input("the atlas has the number {}, AAL's end at 116", aal_number);
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

void mark_ventricles(const Volume& brain, Volume& map) {
  const float dark = ventricle_darkness * median_of_brain(brain);
  std::vector<uint8_t> marked = deep_inside(brain, std::llround(ventricle_depth_mm / brain.grid.spacing()[0]));
  for (size_t p = 0; p < marked.size(); ++p) {
    const int label = static_cast<int>(map.values[p]);
    if (brain.values[p] >= dark || (label != unlabelled && label != deep_grey)) marked[p] = 0;
  }
  for (const int64_t p : largest_piece(brain.grid, marked)) map.values[static_cast<size_t>(p)] = ventricles;
}

}  // namespace

std::span<const PhantomRegion> phantom_regions() { return regions; }

Volume phantom_region_map(const Volume& brain, const Volume& atlas) {
  check_input(brain.grid == atlas.grid, "template and atlas are not on one grid: {}x{}x{} and {}x{}x{} voxels, or other places",
              brain.grid.size[0], brain.grid.size[1], brain.grid.size[2], atlas.grid.size[0], atlas.grid.size[1], atlas.grid.size[2]);
  Volume map{brain.grid, std::vector<float>(brain.values.size(), 0.0f)};
  for (size_t p = 0; p < map.values.size(); ++p)
    if (brain.values[p] > 0) map.values[p] = static_cast<float>(label_of(atlas.values[p]));
  mark_ventricles(brain, map);
  for (const PhantomRegion& region : std::span(regions).first(planted_regions))
    check_input(std::count(map.values.begin(), map.values.end(), static_cast<float>(region.label)) > 0,
                "the template with its atlas has no {}: nothing to plant an effect of age in", region.name);
  return map;
}

}  // namespace ermoe
