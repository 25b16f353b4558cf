// Made-up subjects of known age: one brain, deformed at random, whose planted regions have the volumes that an age and an individual
// deviation ask for. For users without data, and to know the truth that a model ought to find. tools/phantom.h writes them as a
// data set; data/phantom_field.h has the deformations, data/phantom_predictor.h what the best predictor of age reaches.
#pragma once

#include "data/phantom_field.h"
#include "data/phantom_growth.h"
#include "data/phantom_plant.h"
#include "data/phantom_predictor.h"
#include "data/volume.h"

#include <cstdint>
#include <vector>

namespace ermoe {

/// Labels of `phantom_regions(plant)` on the brain's grid. `atlas` has the numbers of AAL (Tzourio-Mazoyer et al., NeuroImage 2002), 1 to
/// 116. It knows no ventricles: the lateral ones are the largest connected piece that is dark (below 0.55 of the brain's median) and
/// deep inside (25 mm from outside in steps along the axes), in no region of the atlas or in its deep grey matter. Brain is where the
/// intensity is above 0. Throws `InputError` where the grids differ, the atlas has another's numbers, a planted region or a number
/// of AAL that one is made of is missing, or one has less than 1 ml.
Volume phantom_region_map(const Volume& brain, const Volume& atlas, const std::vector<PhantomRegion>& plant = usual_plant());

struct PhantomSettings {
  uint64_t seed = 1;
  double spacing = 2;  // mm, of what comes out
  double age_from = 20, age_to = 80;
  double deviation_years = 8;  // of a region's own age from its owner's: the regions' volumes are those of their own ages
  double shape = 1;            // of the random deformations that say nothing of age; 0: none
  double intensity = 1;        // of gain, contrast, shading and noise; 0: none
  std::vector<PhantomRegion> plant = usual_plant();
};

/// What the settings' best predictor sees.
AgeModel age_model(const PhantomSettings& settings);

struct PhantomPerson {
  double age = 0;               // years, of two decimals
  char sex = 'F';               // drawn, without any effect
  std::vector<double> effects;  // log(volume / the template's) of each planted region
};

/// Subject `index` of a seed; the same whatever else is drawn.
PhantomPerson draw_person(const PhantomSettings& settings, int64_t index);
/// Its age as the regions' effects together say it: what `AgeModel::best_guess` takes.
double age_seen(const PhantomSettings& settings, const PhantomPerson& person);

struct PhantomSubject {
  Volume brain;                 // whole numbers from 0, outside the brain, to 255
  Volume regions;               // labels of phantom_regions
  std::vector<double> effects;  // that the deformation has: to 0.2 years of each region's age
  double least_jacobian = 0;    // of the deformation; above 0: it does not fold
};

/// Makes subjects from one brain. Safe to use from several threads; a subject depends on the settings and its number alone.
class Phantom {
 public:
  /// `brain` and `atlas` on one grid whose axes are those of the world and whose spacing is the same along all three. Throws `InputError`
  /// otherwise, and as `phantom_region_map`.
  Phantom(const Volume& brain, const Volume& atlas, const PhantomSettings& settings);

  const PhantomSettings& settings() const { return settings_; }
  /// By label, from 1.
  const std::vector<PhantomRegion>& regions() const { return regions_; }
  /// Millilitres of each region in the template.
  const std::vector<double>& template_ml() const { return template_ml_; }
  /// Throws `InputError` where the deformation folds or misses its effects: the settings ask for too much.
  PhantomSubject make(int64_t index) const;
  PhantomSubject make(int64_t index, const PhantomPerson& person) const;
  /// Throws as `make`, in a part of the time.
  void check_reach(int64_t index) const;

 private:
  struct Shape;

  std::vector<double> effects_of(const VectorField& backward, double scale, std::vector<std::vector<Point3>>& found) const;
  Shape shape_of(int64_t index, const PhantomPerson& person) const;
  void paint(PhantomSubject& subject, const Shape& shape, RngKey key) const;

  PhantomSettings settings_;
  std::vector<PhantomRegion> regions_;
  Lattice fine_;              // the template's voxels
  Lattice coarse_;            // of the fields
  Point3 origin_{};           // of both, in the world
  Volume labels_;             // of the template
  std::vector<float> brain_;  // of the template, 0 to 1, blurred to the spacing of what comes out
  std::vector<double> template_ml_;
  PhantomGrowth plan_;
};

}  // namespace ermoe
