// The age of a brain as one model says it, or several: with how far they, or looks at varied copies of the volume, lie apart, and which
// experts looked at it. Read next: tools/ermoe_predict.cpp.
#pragma once

#include "tools/loaded_model.h"
#include "tools/prediction.h"

#include <optional>
#include <string>
#include <vector>

namespace ermoe {

struct ExpertUse {
  int64_t block = 0, expert = 0;
  double share = 0;  // of the block's filled slots; soft routing: of its tokens' outputs
};

struct VolumePrediction {
  std::string file;
  double age = 0;                  // mean over models, each of the volume as it is
  double spread = 0;               // standard deviation over models, or of one model over varied copies
  std::vector<double> each = {};   // by model
  std::vector<ExpertUse> experts;  // of the last block with experts, most used first; of the first model
};

struct VolumePredictionOptions {
  std::string regions;  // a map on the grid of the volume, where experts have regions; empty: the run's atlas
  int64_t copies = 16;  // varied as while training, where there is one model
  int64_t experts = 3;  // named
};

/// Reads `file` as each model's settings say. Throws `InputError` that names it.
VolumePrediction predict_volume(Engine& engine, std::vector<LoadedModel>& models, const std::string& file,
                                const VolumePredictionOptions& options);

/// "file,age,spread,models,experts" lines, or an array of objects.
std::string volume_predictions_text(const std::vector<VolumePrediction>& predictions, PredictionFormat format);

}  // namespace ermoe
