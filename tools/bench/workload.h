// What is timed: the models of the performance table, each with what it is trained to and a batch of random inputs.
// Read next: tools/bench/step_bench.h.
#pragma once

#include "models/dual_encoder.h"
#include "models/micro_batch.h"
#include "models/summary.h"
#include "models/vit.h"
#include "tools/engine.h"

#include <memory>

namespace ermoe {

/// c10: D 384, 32 px in patches of 4, 10 classes. s16, b16: D 384 and 768, 224 px in patches of 16, 1000 classes. ba: D 768,
/// volumes of 128³ voxels with one channel in patches of 16³, one number to come close to in L1. clip: the image tower of b16 and a text
/// tower of 12 dense blocks, D 512, over captions of 77 tokens out of 49,408, compared in 512 numbers by the symmetric InfoNCE; clip_tiny:
/// two blocks a tower, to try things out. All but that: 12 blocks, heads of 64, a class token, 8 experts of which 2 a token in every second
/// block (of the images).
enum class Workload { c10, s16, b16, ba, clip, clip_tiny };
/// What stands in every second block: a dense network as in the others, or experts behind one of the routers. Experts are
/// factored for `ermoe` and plain for the others.
#define ERMOE_BENCH_LAYER(name) name,
enum class BenchLayer { dense, ERMOE_ROUTERS(ERMOE_BENCH_LAYER) };
#undef ERMOE_BENCH_LAYER

struct WorkloadOptions {
  Workload workload = Workload::c10;
  BenchLayer layer = BenchLayer::ermoe;
  Orthogonality orthogonality = Orthogonality::newton_schulz;
};

/// Images a step: `asked`, or for 0 256 for clip, whose loss is over the batch, 32 for ba and 16 for the others.
int64_t batch_of(Workload workload, int64_t asked);

/// The model of a workload; of clip the image tower.
VitConfig workload_model(const WorkloadOptions& options);
/// Whether it trains a text tower beside the image tower.
bool has_text(Workload workload);
/// Both towers of clip and clip_tiny.
DualConfig workload_towers(const WorkloadOptions& options);

/// A model with all that a training step of it takes.
struct BenchTask {
  std::unique_ptr<Model> model;  // without memory yet
  ModelSummary cost;
  TargetLoss loss;   // reads what lies in the engine's memory
  MicroBatch batch;  // random, on the engine's device, another one on each rank
};

/// Of so many images. `engine` must outlive it.
BenchTask make_task(const Engine& engine, const WorkloadOptions& options, int64_t images);

}  // namespace ermoe
