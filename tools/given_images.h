// Images named on a command line, as a model reads them: batch by batch, in order. What prediction and search share.
// Read next: tools/ermoe_predict.cpp, tools/query.h.
#pragma once

#include "autograd/variable.h"
#include "data/dataset.h"
#include "tools/engine.h"
#include "tools/run_config.h"

#include <cstdint>
#include <functional>
#include <vector>

namespace ermoe {

/// Takes the samples of a batch, B of them, and their images (B, C, S, S), normalised, on the engine's device.
using ImagesFn = std::function<void(const std::vector<int64_t>& samples, const Variable& images)>;

/// Reads all `images` as `config`'s model was trained with, on `threads` threads, and holds no more than a few batches. Those that cannot
/// be read are left out, named by `warn`, and counted in what is returned.
int64_t for_each_given_batch(Engine& engine, const RunConfig& config, const ImageDataset& images, int threads, const WarnFn& warn,
                             const ImagesFn& fn);

}  // namespace ermoe
