// How well a dual encoder's images and captions find each other on an evaluation split: each image and each caption goes through its tower
// once, whichever rank has it, and then every rank compares all of them. Read first: models/retrieval_metrics.h, tools/evaluation.h.
#pragma once

#include "models/dual_encoder.h"
#include "tools/caption_pipeline.h"
#include "tools/evaluation.h"

#include <vector>

namespace ermoe {

/// Features of length 1 of a split, f32 on the host.
struct PairFeatures {
  std::vector<int64_t> samples;  // (I) of the data set, ascending: all whose image could be read
  Tensor image;                  // (I, P)
  Tensor text;                   // (C, P): all captions of these, in the order of the data set
  std::vector<int64_t> owners;   // (C) row of `image` that each belongs to
};

struct PairEvaluation {
  Evaluation evaluation;  // `loss` is the training loss of batches as equal as can be, each image with its first caption
  PairFeatures features;
};

/// How many images an evaluation takes at a time: through the towers, as memory allows; and into the loss, since a caption is harder to
/// tell from many others.
struct PairBatches {
  int64_t images = 1, loss = 1;
};

/// The loss as in training, of a micro-batch.
PairBatches pair_batches(const TrainConfig& train);

/// Runs the whole evaluation split, batches of which this rank has its part; as many captions go through the text tower
/// at once. Of several ranks all call it, and all return the same. `shuffled` sends every token, of images and texts, to the experts next
/// to its own. Throws InputError where not one image could be read.
PairEvaluation evaluate_pairs(const ExecContext& ctx, DualEncoder& model, Pipeline& pipeline, const PairBatches& batches,
                              const RoutingCollector* previous = nullptr, ExpertOrder order = ExpertOrder::own,
                              const EvaluationProgress& progress = {});

/// What each caption found: CSV with a line a caption: image, caption, rank (of its own image), top_image. `pipeline` is the one evaluated.
std::string found_csv(const PairFeatures& features, const CaptionPipeline& pipeline);

}  // namespace ermoe
