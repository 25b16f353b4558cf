// What stands in a checkpoint: the model, its averages, the optimizer's moments, and where training was. How a folder
// becomes whole on disk is models/checkpoint_store.h.
#pragma once

#include "models/checkpoint_store.h"
#include "models/train_step.h"
#include "models/weights.h"

#include <cstdint>
#include <string>
#include <vector>

namespace ermoe {

/// Where training stands, beside the tensors. Random numbers are keyed by seed and step, so the seed is their state.
struct TrainingProgress {
  int64_t step = 0;        // optimizer steps tried, refused ones included
  int64_t bad_steps = 0;   // refused in a row
  int64_t skipped = 0;     // refused in all
  int64_t epoch = 0;       // of the next micro-batch
  int64_t epoch_step = 0;  // its place within the epoch
  uint64_t seed = 0;
  double best = 0;  // the best value of the deciding metric so far
  bool has_best = false;
  std::string config;                // the run's config.json, whole
  std::vector<std::string> classes;  // names of the outputs, in order; fewer where the model has spare ones
};

/// Writes model.safetensors, optimizer.safetensors, state.json, and ema.safetensors where there is an average, into
/// `folder`. ema.safetensors holds the averages as they are, so that a resumed run continues bit for bit; whoever uses
/// them projects them (models/average.h); beside them the statistics that somebody took with them at this very step. All ranks of ctx.comm
/// call it with rank 0's `folder`, each writes what it has, and all throw where one fails. Returns what is known of the files' checksums.
FileChecksums write_checkpoint(const ExecContext& ctx, const std::string& folder, Model& model, const Optimizer& optimizer,
                               const MovingAverage* average, const TrainingProgress& progress);

/// Writes model.safetensors and state.json alone: a model to be used, from which no training goes on. One process.
FileChecksums write_model(const ExecContext& ctx, const std::string& folder, Model& model, const TrainingProgress& progress);

/// Reads state.json alone. Throws InputError that names the file and the fault.
TrainingProgress read_progress(const std::string& folder);

/// Restores everything, of what ranks share out the part of this one. Anything missing or of another shape is an InputError that names it.
void read_checkpoint(const ExecContext& ctx, const std::string& folder, Model& model, Optimizer& optimizer, MovingAverage* average);

/// Restores the averages of a checkpoint that holds some. Faults as above.
void read_average(const ExecContext& ctx, const std::string& folder, MovingAverage& average);
/// Also the statistics kept with them, for `model`'s buffers; keeps none where the checkpoint has none.
void read_average_with_statistics(const ExecContext& ctx, const std::string& folder, Model& model, MovingAverage& average);

}  // namespace ermoe
