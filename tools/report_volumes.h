// What a model of volumes did, for the report: true and predicted numbers, the subjects that it was most wrong about, and where its experts
// look. Read first: tools/looks.h, tools/slice_view.h.
#pragma once

#include "tools/evaluation.h"
#include "tools/looks.h"
#include "tools/volume_pipeline.h"

#include <nlohmann/json_fwd.hpp>

namespace ermoe {

/// {"points": [[true, predicted, name], …], "report": regression_json, "worst": [{image, name, truth, predicted}, …]}, up to `images` of
/// the worst with slices through their middle.
nlohmann::ordered_json report_ages(const Evaluation& evaluation, const VolumePipeline& pipeline, const RunConfig& config,
                                   const std::string& split, int64_t images);

/// By block: a picture of each expert's mean weight over the mean brain.
nlohmann::ordered_json report_expert_maps(const ModelLooks& looks, double spacing, int64_t subjects);

}  // namespace ermoe
