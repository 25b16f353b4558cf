// What a run is trained for, and the model that its settings describe. The one place that decides: programs ask here.
#pragma once

#include "models/dual_encoder.h"
#include "tools/run_config.h"

#include <memory>
#include <string_view>

namespace ermoe {

/// Classes of images, numbers of images or volumes, or images that find their captions.
enum class Task { classes, numbers, pairs };

/// A text tower (text.depth above 0) makes pairs; else loss.kind says what is predicted.
Task task_of(const RunConfig& config);

/// The two towers of a run of pairs.
DualConfig dual_config(const RunConfig& config);

/// The loss that retrieval.loss names (ops/contrastive_loss.h).
PairLossFn pair_loss(PairLoss kind);

/// The model, without memory: a DualEncoder for pairs, else a Vit. Every size must be known by now (tools/pipeline.h fills them in).
/// Throws InputError that names the key where sizes do not go together.
std::unique_ptr<Model> make_model(const RunConfig& config);

}  // namespace ermoe
