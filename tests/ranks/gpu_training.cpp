// Training that GPUs share over NCCL is training: fifty recorded steps of a model alone, on the whole batch, and of one whose batch and
// experts the ranks share. Started under mpirun by tests/ranks.sh; "skipped" where ranks have no GPU each.
#include "tests/ranks/gpu_training.h"
#include "core/gather.h"
#include "core/hash.h"
#include "core/ranks.h"
#include "models/config_rules.h"
#include "models/recorded_step.h"
#include "models/task_loss.h"
#include "models/vit.h"
#include "ops/soft_targets.h"
#include "tools/engine.h"

#include <cmath>
#include <cstdio>

namespace ermoe::testing {
namespace {

constexpr int64_t steps = 50, batch = 33;

VitConfig model_config(Basis basis) {
  VitConfig c;
  c.image_size = 16;
  c.channels = 3;
  c.patch = 4;
  c.width = 128;
  c.depth = 4;
  c.heads = 2;
  c.classes = 10;
  c.moe.experts = 8;
  c.moe.basis = basis;
  return c;
}

/// One training on this rank's GPU, with memory of its own.
class GpuTraining {
 public:
  GpuTraining(Engine& engine, const ExecContext& ranks, const VitConfig& config, DType compute)
      : memory_(engine.gpu->memory()), step_memory_(engine.gpu->memory()), model_(config) {
    lasting_ = ranks;
    lasting_.allocator = &memory_;
    lasting_.workspace = &workspace_;
    lasting_.mode = Mode::train;
    lasting_.rng = RngKey{3};
    lasting_.part = part_of_batch(batch, ranks.comm->rank(), ranks.comm->size());
    step_ = lasting_;
    step_.allocator = &step_memory_;
    step_.workspace = &step_workspace_;
    model_.allocate(engine.host_ctx(), DType::f32);
    model_.init(engine.host_ctx(), RngKey{1});
    model_.move_to(lasting_, compute, compute == DType::bf16 ? GradWrites::once : GradWrites::many);
    optim_.lr = 2e-4;
    optimizer_.emplace(lasting_, model_.arena(), optim_, StiefelMethod::newton_schulz);
    train_.emplace(lasting_, model_, *optimizer_, nullptr, 1.0);
    const bool recorded = ranks.expert_ranks->size() == 1;
    runner_.emplace(*train_, recorded ? engine.gpu.get() : nullptr,
                    [](const ExecContext& c, const Variable& y, const Tensor& targets) { return task_loss(c, {}, y, targets); });
  }

  /// The loss of the whole batch; not a number where the step was refused.
  double step(CachingAllocator& host, uint64_t number) {
    const VitConfig& c = model_.config();
    const Tensor images = Tensor::empty(host, input_shape(c, batch), DType::f32),
                 labels = Tensor::zeros(host, {batch, c.classes}, DType::f32);
    // Of each class a picture of its own under noise: what is learned smoothly. Noise alone is learned by heart, and there a token that
    // goes to another expert because of one rounding changes everything that follows.
    const RngKey key = RngKey{7}.fold(number);
    const int64_t pixels = images.numel() / batch;
    for (int64_t b = 0; b < batch; ++b) {
      const auto label = static_cast<int64_t>(uniform_int(key.fold(1), static_cast<uint64_t>(b), 10));
      labels.data<float>()[b * c.classes + label] = 1;
      for (int64_t i = 0; i < pixels; ++i) {
        const auto place = static_cast<uint64_t>(b * pixels + i);
        const double picture = normal(RngKey{9}.fold(static_cast<uint64_t>(label)), static_cast<uint64_t>(i));
        images.data<float>()[place] = static_cast<float>(picture + 0.5 * normal(key, place));
      }
    }
    const auto own = [&](const Tensor& t) {
      return on_device_of(lasting_, t.slice(step_.part.first, step_.part.first + step_.part.count));
    };
    const StepReport report = runner_->run(
        step_, 1,
        [&](int64_t) {
          return MicroBatch{own(images), own(labels), {}};
        },
        optim_.lr);
    double loss[] = {report.loss};
    reduce_over_ranks(*lasting_.comm, loss);
    return report.accepted ? loss[0] : NAN;
  }

  /// Of everything that all replicas hold alike: direct parameters, statistics, and the matrices that are made and gathered.
  uint64_t hash() {
    model_.refresh(lasting_);
    uint64_t hash = empty_hash;
    const auto add = [&](const Tensor& t) {
      const Tensor host = on_host(lasting_, t);
      hash = fnv1a({host.raw(), host.bytes()}, hash);
    };
    for (const Parameter* p : parameters_of(model_))
      if (p->experts_of_all == 0 && !last_part(p->name).starts_with("own_") && p->shape.numel() > 0) add(p->value);
    for (const Buffer* b : buffers_of(model_)) add(b->value);
    return hash;
  }

 private:
  CachingAllocator memory_, step_memory_;
  Workspace workspace_{memory_}, step_workspace_{step_memory_};
  ExecContext lasting_, step_;
  Vit model_;
  OptimConfig optim_;
  std::optional<Optimizer> optimizer_;
  std::optional<TrainStep> train_;
  std::optional<RecordedStep> runner_;
};

struct Case {
  const char* name;
  Basis basis;
  DType compute;
  double tolerance;  // of the loss after the last step, relative
  int64_t together;
};

/// Whether losses agree and, where all hold all experts, replicas have the same bits.
bool agrees(Engine& engine, const Case& c) {
  Communicator& world = *engine.ctx.comm;
  const auto experts = world.split(static_cast<int>(world.rank() / c.together)),
             replicas = world.split(static_cast<int>(world.rank() % c.together));
  SelfCommunicator self;
  ExecContext alone = engine.ctx, shared = engine.ctx;
  alone.comm = alone.expert_ranks = alone.replica_ranks = &self;
  shared.expert_ranks = c.together > 1 ? experts.get() : &self;
  shared.replica_ranks = replicas.get();
  shared.expert_chunks = 3;  // of four experts each
  GpuTraining one(engine, alone, model_config(c.basis), c.compute), all(engine, shared, model_config(c.basis), c.compute);
  double first = 0, want = 0, got = 0;
  for (int64_t i = 0; i < steps; ++i) {
    want = one.step(engine.host, static_cast<uint64_t>(i));
    got = all.step(engine.host, static_cast<uint64_t>(i));
    if (i == 0) first = want;
  }
  const double apart = std::abs(got / want - 1);
  const std::vector<uint64_t> hashes = gather_from_all(world, std::vector{all.hash()});
  bool same = true;
  for (const uint64_t h : hashes) same = same && (h == hashes[0] || c.together > 1);
  const bool ok = apart <= c.tolerance && same && want < 0.9 * first;
  if (world.rank() == 0)
    std::printf("%s  %s, %s, %d together: loss %.6f to %.6f alone, %.6f shared (%.1e apart); %s\n", ok ? "ok    " : "FAILED", c.name,
                name_of(c.compute), static_cast<int>(c.together), first, want, got, apart, same ? "replicas alike" : "replicas differ");
  return ok;
}

}  // namespace

int train_on_gpus(Ranks& ranks) {
  Engine engine(1, 0, DeviceChoice::auto_, &ranks);
  const bool first = ranks.world().rank() == 0;
  if (!engine.gpu) {
    if (first) std::printf("skipped: %s\n", engine.device_note.c_str());
    return 0;
  }
  ranks.watch().at(1, "training", Patience::endless);
  int failed = 0;
  for (const int64_t together : {int64_t{1}, static_cast<int64_t>(ranks.world().size())}) {
    for (const Basis basis : {Basis::leading, Basis::disjoint}) {
      const char* const name = basis == Basis::leading ? "ermoe" : "ermoe, disjoint";
      failed += !agrees(engine, {name, basis, DType::f32, 1e-5, together});
      failed += !agrees(engine, {name, basis, DType::bf16, 1e-2, together});
    }
  }
  if (first) std::printf("%d ranks: %d cases failed\n", ranks.world().size(), failed);
  return failed == 0 ? 0 : 1;
}

}  // namespace ermoe::testing
