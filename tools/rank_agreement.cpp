#include "tools/rank_agreement.h"

#include "core/batch_part.h"
#include "core/gather.h"
#include "core/hash.h"
#include "core/sockets.h"
#include "tools/config_check.h"

#include <algorithm>

namespace ermoe {
namespace {

/// Of all values that ranks have alike, and of the statistics beside them.
uint64_t hash_of(const ExecContext& ctx, Model& model) {
  uint64_t hash = empty_hash;
  const auto add = [&](const Tensor& t) {
    const Tensor host = on_host(ctx, t);
    hash = fnv1a({host.raw(), host.bytes()}, hash);
  };
  for (const Parameter* p : model.arena().parameters())
    if (p->role != Parameter::Role::derived && p->experts_of_all == 0 && p->shape.numel() > 0) add(p->value);
  for (const Buffer* b : buffers_of(model)) add(b->value);
  return hash;
}

bool parts_are_whole_groups(int64_t images, int64_t group, int ranks) {
  for (int rank = 0; rank < ranks; ++rank)
    if (part_of_batch(images, rank, ranks).first % group != 0) return false;
  return images % group == 0;
}

}  // namespace

void require_parts_of_batches(const RunConfig& config, int ranks) {
  const MoeConfig& moe = config.model.moe;
  if (ranks == 1) return;
  check_input(config.train.purity_every == 0, "train.purity_every: gradients' purity is measured by one process alone, and here are {}",
              ranks);
  check_input(moe.router != RouterKind::switch_lbl || moe.balance_weight == 0,
              "moe.router: switch_lbl's balance loss is of a whole batch, which several ranks do not put together yet");
  check_input(moe.extra_balance == 0, "moe.extra_balance: a balance loss is of a whole batch, which several ranks do not put together yet");
  check_input(moe.variance_weight == 0,
              "moe.variance_weight: the scores' variance is of a whole batch, which several ranks do not put together yet");
  check_input(
      !means_over_captions(config),
      "moe.z_weight, moe.orthogonal_output_weight: with experts in the text tower they are means over the tokens of a whole batch but its "
      "padding, which several ranks do not put together yet");
  const int64_t images = config.train.batch / config.train.accumulate;
  check_input(
      moe.router != RouterKind::expert_choice || moe.choice_images == 1,
      "moe.choice_images: {} ranks cut batches, those of evaluations too, so experts must choose among the tokens of single images (1), "
      "not of {}",
      ranks, moe.choice_images > 0 ? std::to_string(moe.choice_images) : "all");
  if (moe.router != RouterKind::vmoe) return;
  check_input(moe.capacity_train == 0 && moe.capacity_eval == 0,
              "moe.capacity_train, moe.capacity_eval: a capacity is of a whole batch, which several ranks do not put together yet");
  check_input(
      (moe.importance_weight == 0 && moe.load_weight == 0) || parts_are_whole_groups(images, moe.group_images, ranks),
      "moe.group_images: {} images a micro-batch on {} ranks are not whole groups of {}, of which vmoe's balance losses are; 1 always "
      "fits",
      images, ranks, moe.group_images);
}

void require_same_start(const ExecContext& ctx, Model& model, int64_t step, int64_t images) {
  Communicator& ranks = *ctx.comm;
  if (ranks.size() == 1) return;
  const std::vector<int64_t> steps = gather_from_all(ranks, std::vector{step}), counts = gather_from_all(ranks, std::vector{images});
  const std::vector<uint64_t> hashes = gather_from_all(ranks, std::vector{hash_of(ctx, model)});
  for (size_t r = 1; r < steps.size(); ++r) {
    check_input(counts[r] == counts[0], "data.path: rank {} finds {} training images, and rank 0 finds {}", r, counts[r], counts[0]);
    check_input(steps[r] == steps[0], "train.resume: rank {} stands at step {}, and rank 0 at step {}: its host has another run folder", r,
                steps[r], steps[0]);
    check_input(hashes[r] == hashes[0], "train.init, train.resume: rank {} has other weights than rank 0", r);
  }
}

int ranks_on_same_cores(Communicator& ranks) {
  if (ranks.size() == 1) return 1;
  const std::string host = host_name();
  const std::vector<int> cores = usable_cores();
  const uint64_t own = fnv1a(std::as_bytes(std::span(cores)), fnv1a(std::as_bytes(std::span(host))));
  return static_cast<int>(std::ranges::count(gather_from_all(ranks, std::vector{own}), own));
}

}  // namespace ermoe
