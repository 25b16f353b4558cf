// Training shared by ranks is training: what one process does with the whole batch, each rank does here too, alone, and compares.
// Started under mpirun by tests/ranks.sh. Prints a line a case and ends with 1 where any failed. With `gpu`: tests/ranks/gpu_training.h.
#include "core/ranks.h"
#include "models/weights.h"
#include "ops/attach_loss.h"
#include "tests/models/tiny_model.h"
#include "tests/ranks/dual_training.h"
#include "tests/ranks/gpu_training.h"
#include "tools/main_guard.h"

#include <cstdio>

namespace ermoe::testing {
namespace {

constexpr int64_t steps = 20, batch = 10;  // which two, three and four ranks share unevenly

struct Case {
  std::string name;
  VitConfig config;
  int64_t nobodys = -1;      // expert that is closed to all tokens
  int64_t only = -1;         // the one expert that is open
  std::string trained = {};  // the one parameter that is; empty: all are
};

std::vector<Case> cases() {
  VitConfig base = tiny_config();
  base.dropout = 0.1;
  base.drop_path = 0.2;
  std::vector<Case> all;
  const auto add = [&](std::string name) -> Case& {
    all.push_back({.name = std::move(name), .config = base});
    return all.back();
  };
  add("ermoe");
  add("ermoe, disjoint").config.moe.basis = Basis::disjoint;
  add("ermoe, untied").config.moe.basis = Basis::untied;
  Case& freed = add("ermoe, disjoint, free experts");
  freed.config.moe.basis = Basis::disjoint;
  freed.config.moe.free_experts = 2;
  freed.config.moe.threshold = "0.1";
  add("ermoe, quantile").config.moe.threshold = "quantile:0.2";
  Case& penalized = add("ermoe, disjoint, penalty");
  penalized.config.moe.basis = Basis::disjoint;
  penalized.config.moe.orthogonality = Orthogonality::penalty;
  add("ermoe, fewer experts than ranks").config.moe.experts = 2;
  Case& few = add("ermoe, disjoint, fewer experts than ranks");
  few.config.moe.basis = Basis::disjoint;
  few.config.moe.experts = 2;
  add("ermoe, an expert without tokens").nobodys = 2;
  Case& one = add("ermoe, all tokens on one expert");
  one.config.moe.top_k = 1;
  one.only = 1;
  Case& dropped = add("ermoe, experts closed to a batch");
  dropped.config.moe.expert_dropout = 0.5;
  dropped.config.moe.expert_clusters = 2;
  add("emoe").config.moe.router = RouterKind::emoe;
  Case& adapters = add("emoe, adapters");
  adapters.config.moe.router = RouterKind::emoe;
  adapters.config.moe.emoe_rank = 5;
  adapters.config.moe.hidden = 0;
  adapters.config.moe.adapter = 12;
  Case& penalized_emoe = add("emoe, penalty");
  penalized_emoe.config.moe.router = RouterKind::emoe;
  penalized_emoe.config.moe.orthogonality = Orthogonality::penalty;
  add("mixed experts").config.moe.layer = ExpertLayer::cp;
  add("prototype").config.moe.router = RouterKind::prototype;
  for (const RouterKind router : {RouterKind::vmoe, RouterKind::linear, RouterKind::bias_balanced, RouterKind::learned_cosine,
                                  RouterKind::soft, RouterKind::expert_choice}) {
    Case& c = add(std::string(enum_name(router)));
    c.config.moe.router = router;
    c.config.moe.expert = ExpertKind::plain;
    c.config.moe.basis = Basis::untied;
    c.config.moe.group_images = 1;
    if (router == RouterKind::expert_choice) c.config.moe.choice_images = 1;
  }
  Case& terms = add("linear, terms of a parameter and of outputs");
  terms.config.moe.router = RouterKind::linear;
  terms.config.moe.simbal_weight = 0.1;
  terms.config.moe.orthogonal_output_weight = 0.5;
  return all;
}

/// All ranks, of which so many side by side hold a layer's experts together.
struct RankGroups {
  Communicator& world;
  int together;
  std::unique_ptr<Communicator> experts = world.split(world.rank() / together), replicas = world.split(world.rank() % together);
};

/// What of an image is not finite: itself, or alone the gradient that its loss sends back.
enum class Damage { pixel, gradient };

/// A model that takes this rank's part of each step's images, and of the experts.
class Training {
 public:
  Training(const Case& c, DType dtype, const RankGroups* ranks) : case_(c), tiny_(c.config, dtype), dtype_(dtype) {
    ExecContext& ctx = tiny_.bench.ctx;
    if (!c.trained.empty()) {
      freeze(ctx, tiny_.model, {"*"});
      tiny_.parameter(c.trained).frozen = false;
    }
    if (ranks != nullptr) {
      ctx.comm = &ranks->world;
      ctx.expert_ranks = ranks->experts.get();
      ctx.replica_ranks = ranks->replicas.get();
      ctx.expert_chunks = 2;
      tiny_.model.move_to(ctx, dtype);
    }
    ctx.part = part_of_batch(batch, ctx.comm->rank(), ctx.comm->size());
    optim_.lr = 1e-3;
    optimizer_.emplace(ctx, tiny_.model.arena(), optim_, stiefel_method(c.config.moe.orthogonality));
    step_.emplace(ctx, tiny_.model, *optimizer_, nullptr, 1.0);
  }

  /// From here on image `number` of each batch makes steps that are refused, by `damage`.
  void poison(int64_t number, Damage damage) {
    poisoned_ = number;
    damage_ = damage;
  }

  StepReport step(uint64_t number) {
    const ExecContext& ctx = tiny_.bench.ctx;
    const VitConfig& config = tiny_.model.config();
    const RngKey key = RngKey{11}.fold(number);
    const int64_t begin = ctx.part.first, end = begin + ctx.part.count;
    const Tensor images = random_input(ctx, {input_shape(config, batch)}, dtype_, key).slice(begin, end);
    const Tensor targets = random_input(ctx, {{batch, config.classes}, OpInput::Fill::unit}, dtype_, key.fold(1)).slice(begin, end);
    const bool here = poisoned_ >= begin && poisoned_ < end;
    if (here && damage_ == Damage::pixel) fill(images.slice(poisoned_ - begin, poisoned_ - begin + 1), NAN);
    const auto loss = [&](const ExecContext& c, const Variable& y) -> Variable {
      const Variable own = task_loss(c, {}, y, targets);
      return here && damage_ == Damage::gradient ? attach_loss(c, own, own, NAN) : own;  // which leaves the loss as it is
    };
    step_->begin(ctx, 1);
    step_->micro_batch(ctx.with_rng(RngKey{3}), images, loss, allow());
    return step_->finish(ctx, optim_.lr);
  }

  /// Parameters and statistics, but for what rounding alone decides: a key's bias adds the same to all scores of a softmax, so its gradient
  /// is rounding, which Adam makes steps of; and in f32 a score at the edge of a bin is counted in either.
  Snapshot values() { return comparable(tiny_.values()); }

  /// The same of a model that has all experts: what this one has of it.
  Snapshot part_of(Snapshot all) {
    for (const Parameter* p : parameters_of(tiny_.model))
      if (p->experts_of_all > 0 && p->role != Parameter::Role::derived)
        all[p->name] = all.at(p->name).slice(p->expert_offset, p->expert_offset + p->shape[0]);
    std::erase_if(all, [](const auto& entry) { return entry.second.numel() == 0; });  // another rank has all of it
    return all;
  }

 private:
  Snapshot comparable(Snapshot all) const {
    for (auto& [name, tensor] : all) {
      if (!name.ends_with("qkv.bias")) continue;
      const int64_t D = tensor.numel() / 3;
      fill(tensor.slice(D, 2 * D), 0);
    }
    if (dtype_ == DType::f32) std::erase_if(all, [](const auto& entry) { return entry.first.ends_with("histogram"); });
    return all;
  }

  Tensor allow() const {
    if (case_.nobodys < 0 && case_.only < 0) return {};
    const ExecContext& ctx = tiny_.bench.ctx;
    const int64_t rows = ctx.part.count * tiny_.model.tokens(), experts = case_.config.moe.experts;
    const Tensor mask = ctx.empty({rows, experts}, DType::u8);
    for (int64_t i = 0; i < rows * experts; ++i) {
      const int64_t e = i % experts;
      mask.data<uint8_t>()[i] = e != case_.nobodys && (case_.only < 0 || e == case_.only) ? 1 : 0;
    }
    return mask;
  }

  const Case& case_;
  TinyModel tiny_;
  DType dtype_;
  int64_t poisoned_ = -1;
  Damage damage_ = Damage::pixel;
  OptimConfig optim_;
  std::optional<Optimizer> optimizer_;
  std::optional<TrainStep> step_;
};

double norm_of(const std::vector<double>& x) {
  double sum = 0;
  for (double v : x) sum += v * v;
  return std::sqrt(sum);
}

struct Distance {
  double worst = 0;
  std::string where = {};
};

/// The largest distance of two snapshots' tensors, each relative to its norm; infinite where anything is missing or not a number.
Distance distance(const Snapshot& a, const Snapshot& b) {
  Distance d{.worst = a.size() == b.size() ? 0 : INFINITY};
  for (const auto& [name, tensor] : a) {
    const auto x = to_doubles(tensor);
    auto y = to_doubles(b.at(name));
    for (size_t i = 0; i < y.size(); ++i) y[i] -= x[i];
    const double own = norm_of(y) / std::max(norm_of(x), 1e-3);
    if (own <= d.worst) continue;
    d = {std::isnan(own) ? INFINITY : own, name};
  }
  return d;
}

/// The larger one; infinite where either is not a number.
double worse(double a, double b) { return std::isnan(a) || std::isnan(b) ? INFINITY : std::max(a, b); }

/// Σ over ranks of what each holds.
double sum_over(Communicator& world, CachingAllocator& memory, double value) {
  const Tensor t = Tensor::from<double>(memory, {1}, std::vector<double>{value});
  world.all_reduce(t, ReduceOp::sum);
  return t.data<double>()[0];
}

bool agrees(const Case& c, DType dtype, double tolerance, const RankGroups& ranks) {
  Communicator& world = ranks.world;
  CachingAllocator memory(make_host_source());
  Training alone(c, dtype, nullptr), shared(c, dtype, &ranks);
  double worst = 0;
  for (uint64_t i = 0; i < steps; ++i) {
    const StepReport want = alone.step(i), got = shared.step(i);
    const double loss = sum_over(world, memory, got.loss), extra = sum_over(world, memory, got.extra_loss);
    worst = worse(worse(worst, std::abs(loss / want.loss - 1)), std::abs(got.grad_norm / want.grad_norm - 1));
    if (want.extra_loss != 0) worst = worse(worst, std::abs(extra / want.extra_loss - 1));
    if (!want.accepted || !got.accepted) worst = INFINITY;
  }
  const Distance weights = distance(shared.part_of(alone.values()), shared.values());
  const double everywhere = sum_over(world, memory, std::max(worst, weights.worst) <= tolerance ? 0.0 : 1.0);
  if (world.rank() == 0)
    std::printf("%s  %s, %s: losses and norms within %.1e, weights within %.1e (%s)\n", everywhere == 0 ? "ok    " : "FAILED",
                c.name.c_str(), name_of(dtype), worst, weights.worst, weights.where.c_str());
  return everywhere == 0;
}

/// One image, of one rank, spoils a step: all ranks refuse it, name the fault that one process names, and keep what they have.
bool refuses(const Case& c, int64_t image, Damage damage, const RankGroups& ranks) {
  CachingAllocator memory(make_host_source());
  Training alone(c, DType::f32, nullptr), shared(c, DType::f32, &ranks);
  bool sound = alone.step(0).accepted && shared.step(0).accepted;
  const Snapshot before = shared.values();
  alone.poison(image, damage);
  shared.poison(image, damage);
  const StepReport want = alone.step(1), got = shared.step(1);
  sound = sound && !want.accepted && !got.accepted && got.fault == want.fault && distance(before, shared.values()).worst == 0;
  const double everywhere = sum_over(ranks.world, memory, sound ? 0.0 : 1.0);
  if (!sound) std::printf("rank %d says '%s', one process '%s'\n", ranks.world.rank(), got.fault.c_str(), want.fault.c_str());
  if (ranks.world.rank() == 0)
    std::printf("%s  %s: image %d: %s\n", everywhere == 0 ? "ok    " : "FAILED", c.name.c_str(), static_cast<int>(image),
                want.fault.c_str());
  return everywhere == 0;
}

int refuse(const RankGroups& ranks) {
  int failed = 0;
  const std::vector<Case> all = cases();
  Case dense = all[0];
  dense.name = "dense";
  dense.config.moe.layers = "none";
  Case one = all[0];
  one.name = "one expert's factor, which one rank steps";
  one.config.moe.top_k = 1;
  one.only = 1;
  one.trained = "blocks.1.moe.experts.U1";
  for (const Case& c : {all[0], all[1], dense, one})
    for (const int64_t image : {int64_t{0}, batch - 1})  // the first rank's and the last one's
      for (const Damage damage : {Damage::pixel, Damage::gradient}) failed += !refuses(c, image, damage, ranks);
  return failed;
}

int train(Communicator& world) {
  int failed = 0;
  for (int together = 1; together <= std::min(world.size(), 4); ++together) {
    if (world.size() % together != 0) continue;
    const RankGroups ranks{.world = world, .together = together};
    if (world.rank() == 0) std::printf("%d ranks, %d of them hold the experts together\n", world.size(), together);
    for (const Case& c : cases()) {
      if (c.config.moe.experts < together) continue;  // refused
      failed += !agrees(c, DType::f64, 1e-12, ranks);
      failed += !agrees(c, DType::f32, 1e-4, ranks);
    }
    failed += !dual_training_agrees(world, *ranks.experts, *ranks.replicas);
    failed += refuse(ranks);
  }
  if (world.rank() == 0) std::printf("%d ranks: %d cases failed\n", world.size(), failed);
  return failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace ermoe::testing

int main(int argc, char** argv) {
  const bool on_gpus = argc > 1 && std::string_view(argv[1]) == "gpu";
  std::unique_ptr<ermoe::Ranks> ranks;
  return ermoe::guard_main(
      "ranks",
      [&] {
        ranks = ermoe::Ranks::join("ranks", 60);
        return on_gpus ? ermoe::testing::train_on_gpus(*ranks) : ermoe::testing::train(ranks->world());
      },
      [&](const std::string& message, int code) {
        if (ranks) ranks->watch().stop(message, code);
      });
}
