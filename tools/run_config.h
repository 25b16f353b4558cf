// Everything that a user can set about one run, as plain structs with defaults. The model's, optimizer's and loss's own
// settings come from models/config.h. Keys, help and checks: tools/config_table.cpp. Combinations: tools/config_check.h.
#pragma once

#include "data/captions.h"
#include "data/intensity.h"
#include "models/config.h"

#include <cstdint>
#include <string>
#include <vector>

namespace ermoe {

/// Who decodes JPEG files. `auto_`: the GPU where it has engines for that and the data set holds photographs, else the CPU.
enum class DecoderChoice { auto_, cpu, gpu };

struct DataConfig {
  std::string path;
  double max_bad = 0.01;  // share of unreadable samples at which a run stops
  int64_t workers = 0;    // decoding threads; 0: as many as train.threads
  DecoderChoice decoder = DecoderChoice::auto_;
  double gpu_cache = 0.25;   // share of a GPU's free memory that the decoded images may take where all of them fit; 0: none
  std::vector<double> mean;  // per channel, in [0, 1] units; empty: measured on the training images
  std::vector<double> std;
  double crop_pct = 1;                          // share of the shorter side that the centre crop of a sample keeps
  int64_t limit = 0;                            // use the first N training images only; 0: all
  int64_t overfit = 0;                          // train and evaluate on the first N training images, unaugmented; 0: off
  double val_share = 0.1;                       // split off the training images where the data set brings no evaluation split
  EvaluationPart part = EvaluationPart::auto_;  // of images with captions: which part evaluates
  // Of volumes (data/subject_table.h, data/volume_reader.h)
  std::string table;    // of subjects and ages; empty: participants.tsv
  std::string volumes;  // where a subject's volume lies; empty: as the table's column `path` says, or as in BIDS
  std::string regions;  // where its map of regions lies, or one atlas for all; empty: none
  std::string cache;    // folder for prepared volumes that memory cannot hold; empty: that of temporary files
  double spacing = 2;   // mm between voxels
  Normalize normalize = Normalize::mean;
  int64_t folds = 0;       // of a cross-validation; 0: none
  int64_t fold = 0;        // the one that is held out, from 1; 0: each in turn
  uint64_t fold_seed = 0;  // deals subjects out to folds
};

struct AugmentConfig {
  int64_t crop_padding = 0;                          // pixels of zero border before a random crop back to the image size
  bool flip = false;                                 // mirror half of the images, or of the volumes, left to right
  bool resized_crop = false;                         // a random part of each photograph, scaled to the image size
  std::vector<double> crop_scale = {0.08, 1};        // its share of the area, from and to
  std::vector<double> crop_ratio = {0.75, 4.0 / 3};  // its width over its height, from and to
  int64_t randaugment_n = 0;                         // operations an image; 0: off
  double randaugment_m = 9;                          // their strength, 0 to 10
  double erasing = 0;                                // probability of erasing a random rectangle
  double mixup = 0;                                  // α of Beta(α, α); 0: off
  double cutmix = 0;                                 // α likewise
  double mix_probability = 1.0;
  double mix_switch = 0.5;  // share of cutmix where both are on
  int64_t off_epochs = 0;   // the last N epochs go without mixup and cutmix
  // Volumes: see VolumeAugment of ops/augment_volume.h, which `volume_augment` makes of them
  double shift = 0;   // voxels
  double rotate = 0;  // degrees
  double scale = 0, gain = 0, gamma = 0;
  double bias = 0;
  double noise = 0;
};

/// `auto_`: a GPU where the build and the machine have one, else the CPU.
enum class DeviceChoice { auto_, cpu, cuda };

/// What ops compute in. Weights are kept and stepped in f32 in any case. `auto_`: bf16 on a GPU, f32 on a CPU.
enum class Precision { auto_, f32, bf16 };

struct TrainConfig {
  int64_t epochs = 10;
  int64_t steps = 0;           // 0: as `epochs` says
  int64_t batch = 128;         // images of one step, over all ranks and micro-batches
  int64_t accumulate = 1;      // micro-batches that a step is split into
  bool graph = true;           // on a GPU: a step recorded once and replayed
  int64_t eval_batch = 0;      // 0: as batch / accumulate
  int64_t eval_every = 0;      // steps; 0: after every epoch
  int64_t log_every = 20;      // steps
  int64_t max_bad_steps = 10;  // non-finite steps in a row that are skipped before the run stops
  uint64_t seed = 0;
  int64_t threads = 0;  // 0: the cores that this process may use
  DeviceChoice device = DeviceChoice::auto_;
  Precision precision = Precision::auto_;
  std::string out;                  // run folder; empty: runs/<name, or date and time>
  std::string name;                 // of the run, for folder and report
  std::string resume;               // run folder or checkpoint to go on from
  std::string init;                 // weights to start from: a checkpoint or a .safetensors file
  std::vector<std::string> freeze;  // parameters that stay as they are: names with * and ?
  int64_t purity_every = 0;         // steps between measurements of the gradients' purity (models/purity.h); 0: none
  bool upcycle = true;              // experts begin as the dense network that `init` has in their block (models/upcycle.h)
  double upcycle_noise = 0;         // relative, on the scales of experts that begin so
};

/// Which metric on the evaluation split decides about `checkpoints/best`.
enum class BestMetric { accuracy, loss };

struct CheckpointConfig {
  int64_t every = 0;  // steps; 0: after every evaluation
  int64_t keep = 3;   // newest ones kept besides `best`
  BestMetric best = BestMetric::accuracy;
};

/// A model whose image size, channels and classes (0) are read off the data.
inline VitConfig vit_from_data() {
  VitConfig model;
  model.image_size = model.channels = model.classes = 0;
  return model;
}

/// A loss whose target_mean and target_scale (0) are read off the data.
inline LossConfig loss_from_data() {
  LossConfig loss;
  loss.target_scale = 0;
  return loss;
}

/// No text tower: a model of images, or volumes, alone.
inline TextConfig no_text() {
  TextConfig text;
  text.depth = 0;
  return text;
}

/// What ranks send each other of the gradients of experts' matrices. bf16: where a step computes in it, and makes them by one
/// micro-batch; else f32.
enum class ReduceDtype { bf16, f32 };

/// Of several processes, started by mpirun or srun.
struct ParallelConfig {
  double timeout = 60;  // seconds within which a run ends where one of its ranks dies or hangs
  int64_t expert = 1;   // ranks that hold a layer's experts together; 1: each holds all
  int64_t chunks = 0;   // in which rows travel to experts of other ranks; 0: as hosts are
  ReduceDtype reduce = ReduceDtype::bf16;
  bool autotune = false;  // try each number of expert ranks before training, and take the fastest
};

struct RunConfig {
  std::string preset;  // the recipe that the others started from; empty: none
  DataConfig data;
  VitConfig model = vit_from_data();
  OptimConfig optim;
  LossConfig loss = loss_from_data();
  AugmentConfig augment;
  TrainConfig train;
  CheckpointConfig checkpoint;
  ParallelConfig parallel;
  TextConfig text = no_text();
  std::string tokenizer;  // text.tokenizer: file or folder of one; empty: a vocabulary is learnt from the training captions
  RetrievalConfig retrieval;
};

}  // namespace ermoe
