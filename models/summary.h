// What a model costs: parameters, floating-point operations and memory, counted before it runs.
#pragma once

#include "models/dual_encoder.h"
#include "models/vit.h"

#include <cstdint>

namespace ermoe {

struct ModelSummary {
  int64_t parameters = 0;  // trained numbers, factors counted, derived matrices not
  int64_t active_parameters =
      0;  // of the matrices that one token passes: K of the experts (soft routing: all), W1 and W2 counted, not their factors
  double forward_flops = 0;  // of one image: products and attention, 2 a multiply-add; the K chosen experts once
  double scoring_flops = 0;  // the part of it that routing costs
  double step_flops = 0;     // of one optimizer step besides the images: materialising W, its gradients, orthogonal step
};

ModelSummary summarize(Vit& model);
/// Of an image and a caption that fills the context. Its padding takes part in all but experts, so that shorter captions cost less.
ModelSummary summarize(DualEncoder& model);
/// Of whichever of them it is.
ModelSummary summarize(Model& model);

}  // namespace ermoe
