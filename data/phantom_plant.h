// Which regions made-up subjects have, and which of them age: a choice of the user's. Used by data/phantom.h.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace ermoe {

/// A region of the made-up subjects' maps.
struct PhantomRegion {
  std::string name;
  std::vector<int> aal;  // its numbers in the atlas; none: the ventricles, and the brain that no region has
  double slope = 0;      // of the volume's logarithm, a year

  bool planted() const { return slope != 0; }
};

/// What is planted where nothing is chosen: the ventricles grow; hippocampus, frontal and temporal lobe shrink.
std::vector<PhantomRegion> usual_plant();

/// Reads 'ventricles:0.015;hippocampus:-0.005;middle_frontal:7-8:-0.006': regions of `usual_plant` or of the rest of the map by their
/// names, or new ones of AAL's numbers. One to eight; slopes of 0.001 to 0.03 either way. Throws `InputError` that names the region.
std::vector<PhantomRegion> parse_plant(std::string_view text);

/// All regions of the map by label, from 1 (0 is what is not brain): those planted, then the others, without the numbers that are planted
/// elsewhere; the last is what no region has, and gives way.
std::vector<PhantomRegion> phantom_regions(const std::vector<PhantomRegion>& plant);

/// Whether a region is one that the map has anyway, whole.
bool is_of_the_map(const PhantomRegion& region);

}  // namespace ermoe
