// Where a model of volumes looks: which regions each expert takes, maps of that, and how much of the predicted age rests on each place.
// Behind `ermoe-eval --looks`. Read first: tools/specialisation.h, tools/attribution.h; next: tools/looks_report.h.
#pragma once

#include "tools/attribution.h"
#include "tools/engine.h"
#include "tools/expert_slices.h"
#include "tools/pipeline.h"
#include "tools/region_names.h"
#include "tools/specialisation.h"

#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace ermoe {

/// `none`: what the predicted number rests on is not asked, which takes most of the time.
enum class Covering { cubes, none };

struct LooksOptions {
  std::string run;              // a run's folder, or a cross-validation's: then each fold's model looks at who was held out
  std::string data;             // data set; empty: the run's own
  std::string split;            // "train": at the training subjects; else at those held out, where there are such
  std::string regions;          // as data.regions; empty: the run's own
  std::string region_names;     // see RegionNames; empty: none
  int64_t permutations = 1000;  // draws of each null
  int64_t cube = 0;             // voxels a side of what is covered at once; 0: a patch, or 2 a side where there are more than 600
  int64_t batch = 0;            // volumes at a time; 0: as while training
  Covering covering = Covering::cubes;
  Precision precision = Precision::auto_;  // auto: f32, since bf16 rounds off what covering a place changes
};

/// One block of one model.
struct BlockLooks {
  int64_t block = 0, experts = 0;
  std::vector<bool> imposed;              // (E) experts that moe.regions keeps to regions
  std::vector<std::vector<double>> maps;  // (E, patches) mean over subjects of the expert's weight at each patch
  std::vector<ExpertRegion> cells;        // (E, R); empty without regions
  std::vector<ExpertRegion> brain_cells;  // (E, R without label 0): of the weight that falls into regions
  /// Mutual information of those experts that choose by themselves, and the region: with what is outside of all regions as one more
  /// region, and of the regions alone. Nothing where fewer than two experts choose.
  std::optional<Specialisation> everywhere, inside;

  /// This expert's part of all weight, 0 to 1.
  double share_of(int64_t expert) const;
};

/// One model and the subjects that it looked at.
struct ModelLooks {
  int fold = 0;  // from 1; 0: no cross-validation
  std::string checkpoint;
  CubeGrid patches;
  std::vector<int64_t> labels;  // (R); empty without maps of regions
  std::vector<BlockLooks> blocks;
  MeanBrain brain;
  Attribution attribution;
};

/// What a block of every fold says together: experts of different models have nothing in common, so only what is no expert's own is
/// averaged.
struct Information {
  double seen = 0, null_mean = 0, p = 1;
};
struct BlockInformation {
  int64_t block = 0;
  bool imposed = false;  // some experts are kept to regions
  std::optional<Information> everywhere, inside;
};

struct Looks {
  std::vector<ModelLooks> models;
  int64_t subjects = 0;
  double spacing = 1;
  RegionNames names;
  std::vector<BlockInformation> information;
  AttributionReport report;
  // Of all models, in one window around the middle.
  MeanBrain brain;
  Volume attribution, change;  // mean |change| and mean change, in years
  Volume slope;                // years that predictions fall behind a year of age, covered
  int64_t cube = 1;
};

/// Without covering, only `models` are there, with neither their attribution nor what is pooled. Throws `InputError` for a model of images
/// or without numbers as targets, and for a map of regions that the run's experts do not know.
Looks look(Engine& engine, const LooksOptions& options, int threads, const WarnFn& note);

}  // namespace ermoe
