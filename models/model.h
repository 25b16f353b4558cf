// What a training step, a checkpoint and an evaluation ask of a model, whatever it is made of: memory, what is made from factors,
// statistics, a loss. A model of one tower is models/vit.h; of two, models/dual_encoder.h. Read next: models/train_step.h.
#pragma once

#include "autograd/memory/parameter_arena.h"
#include "models/cp_layer.h"
#include "models/micro_batch.h"
#include "models/moe.h"

#include <memory>
#include <string>
#include <vector>

namespace ermoe {

class Model : public Module {
 public:
  // What each model says of itself.

  /// The mean loss of a micro-batch, (): `loss` of the output against its targets, or what the model's own task is. Added terms and
  /// routes are left in `pass`, whose mask of experts is the batch's.
  virtual Variable loss(const ExecContext& ctx, const MicroBatch& batch, const TargetLoss& loss, ForwardPass& pass) = 0;
  /// A forward pass for what it leaves in `pass` and in the routers' statistics.
  virtual void run(const ExecContext& ctx, const ModelInput& input, ForwardPass& pass) = 0;
  /// The initial values; on the host.
  virtual void init(const ExecContext& ctx, RngKey key) = 0;
  /// Settings of all its experts, but for where they stand.
  virtual const MoeConfig& experts() const = 0;
  /// Layers whose experts are routed to, and those whose experts are mixed.
  virtual std::vector<MoeLayer*> moe_layers() = 0;
  virtual std::vector<CpLayer*> cp_layers() = 0;
  /// Of a parameter, counted from the input in the order of use: what is deeper has its gradient earlier.
  virtual int64_t depth_of(const std::string& name) const = 0;
  /// Of the parameters of the block that an expert layer calls `block`.
  virtual int64_t depth_of_block(int64_t block) const = 0;
  /// The name of that block's parameters: "blocks.3".
  virtual std::string name_of_block(int64_t block) const = 0;
  /// The depth of what comes last.
  virtual int64_t last_depth() const = 0;
  /// Layers between a parameter's and its tower's last: 0 for a head. Layer decay counts them.
  virtual int64_t layers_above(const std::string& name) const = 0;
  /// Patches along each side of an image or a volume.
  virtual const Shape& grid() const = 0;

  // What all do alike.

  /// Gives every parameter and buffer its memory (dtype f32 or f64).
  void allocate(const ExecContext& ctx, DType dtype);
  /// Moves all of it to the context's device, and of the experts what is this rank's (models/expert_share.h). There ops
  /// compute in `compute` (f32 or bf16) from masters in f32. `writes`: how often a training step writes a gradient; `once` lets those
  /// of the experts' matrices be of `compute`.
  void move_to(const ExecContext& ctx, DType compute, GradWrites writes = GradWrites::many);
  /// After parameters were set from outside: their bf16 copies and what is made from factors.
  void refresh(const ExecContext& ctx);

  // Hooks of the training step; each walks the MoE layers.
  /// What is made from factors. A step begins with it; elsewhere the next forward pass does it by itself where it must.
  void refresh_derived(const ExecContext& ctx);
  /// That, where factors changed since; of several ranks all call it, also where a rank has nothing to compute.
  void refresh_if_stale(const ExecContext& ctx) {
    if (stale_) refresh_derived(ctx);
  }
  /// The optimizer stepped the factors: what was made from them is out of date.
  void factors_changed() { stale_ = true; }
  /// Leads gradients of derived parameters on to their factors, whose gradients are then those of all ranks together. They have
  /// memory for theirs from here to the arena's next `begin_gradients`: from ctx's allocator.
  void pull_back(const ExecContext& ctx);
  /// Sums over ranks what routers collected.
  void reduce_statistics(const ExecContext& ctx);
  virtual void after_step(const ExecContext& ctx);
  void accept_step(const ExecContext& ctx);
  void discard_step();

  /// Of the largest set of matrices that `refresh_derived` makes at once.
  size_t largest_made_bytes() const;
  ParameterArena& arena() { return *arena_; }
  /// What each rank makes for its own experts and all gather; nothing moves where one rank has all.
  std::vector<GatheredParameter*> gathered();
  /// Sets each parameter's share of the learning rate: layer decay by `layers_above`, and that of orthonormal factors. Before an optimizer
  /// is made.
  void scale_learning_rates(const OptimConfig& config);

 protected:
  /// What is neither parameter nor buffer gets its memory, and moves to be read in `compute`.
  virtual void allocate_constants(const ExecContext&, DType) {}
  virtual void move_constants(const ExecContext&, DType) {}

 private:
  void share_out(const ExecContext& ctx);
  void bundle_matrices();

  std::unique_ptr<ParameterArena> arena_;
  std::vector<std::unique_ptr<MatrixBundle>> matrices_;  // what experts' factors make
  bool stale_ = false;                                   // factors changed since the last refresh
};

}  // namespace ermoe
