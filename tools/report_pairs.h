// What the report's page says of a dual encoder: how well images and captions of the evaluation split find each other, and what some
// captions find. Read next: tools/pair_evaluation.h, tools/report_run.h.
#pragma once

#include "tools/caption_pipeline.h"
#include "tools/pair_evaluation.h"

#include <nlohmann/json_fwd.hpp>

namespace ermoe {

/// "captions", and "to_text" and "to_image" with recalls (shares), median and mean rank; with "folds" the same as the mean over folds of
/// 1,000 images where there are 5,000.
nlohmann::ordered_json report_recall(const RetrievalReport& report);

/// "chosen": `count` captions evenly spread over the split; "worst": those whose image ranks last; each with the five images closest to it
/// and the place of its own, counted as models/retrieval_metrics.h counts it. "pictures": of all images that these name, by number.
nlohmann::ordered_json report_found(const PairFeatures& features, const CaptionDataset& captions, int64_t count);

}  // namespace ermoe
