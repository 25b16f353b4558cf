// How each planted region of made-up subjects is made to grow. Used by data/phantom.h.
#pragma once

#include "data/phantom_field.h"
#include "data/phantom_plant.h"

#include <vector>

namespace ermoe {

struct PhantomGrowth {
  std::vector<VectorField> fields;          // of each planted region: velocity by which the logarithm of its volume grows by 1
  std::vector<std::vector<Point3>> places;  // evenly in each planted region, in mm, to measure it
};

/// `labels` (points of `fine`) are numbers of phantom_regions(plant); the fields are on `coarse`. A region grows evenly, and what lies in
/// no region gives way near it. All other labelled regions, planted or not, keep their volume for small amounts. Throws `InputError` where
/// nothing around a region could give way to it.
PhantomGrowth plan_growth(const std::vector<PhantomRegion>& plant, const Lattice& fine, const std::vector<float>& labels,
                          const Lattice& coarse);

}  // namespace ermoe
