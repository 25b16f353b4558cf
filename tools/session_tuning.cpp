// --parallel.autotune: the real configuration, timed with each number of ranks that can hold the experts together.
#include "core/gather.h"
#include "tools/bench/measure.h"
#include "tools/parallel_choice.h"
#include "tools/session.h"

namespace ermoe {
namespace {

constexpr int64_t timed_steps = 20;
constexpr int64_t untimed_steps = 5;  // before: memory is taken, connections are made, a GPU's third step is recorded
constexpr double gentle = 0.1;        // of the peak learning rate: there is no ascent to it, and only the time counts

}  // namespace

/// Sets parallel.expert, alike on all ranks: they compare the same reduced numbers. Leaves no model behind.
void Session::choose_expert_ranks(RunConfig& config) {
  const int ranks = engine_.ctx.comm->size();
  const SharedSizes sizes = shared_sizes(config, ranks, engine_.compute_dtype(config.train.precision));
  const std::vector<int64_t> choices = expert_rank_choices(ranks, sizes.layers > 0 ? sizes.experts : 1);
  std::vector<TimedChoice> timed;
  for (const int64_t M : choices) {
    if (choices.size() == 1) break;
    engine_.spread_experts(M, config.parallel.chunks);
    try {
      build(config, [](const std::string&) {});
      timed.push_back({.expert_ranks = M, .seconds = time_steps()});
    } catch (const OutOfMemory& e) {
      throw OutOfMemory(fmt::format(
          "parallel.autotune, experts held by {} of {} ranks together: {}; to leave this out, set parallel.expert", M, ranks, e.what()));
    }
    drop_model();
  }
  config.parallel.expert = timed.empty() ? 1 : fastest_of(timed).expert_ranks;
  engine_.spread_experts(config.parallel.expert, config.parallel.chunks);
  tuning_ = timed.empty() ? fmt::format("parallel autotune has nothing to choose: {} rank{}, {} experts a layer", ranks,
                                        ranks == 1 ? "" : "s", sizes.experts)
                          : describe_timings(timed, timed_steps);
}

/// Seconds of a step on the rank that takes longest, the median of some. The model is as untrained as `build` left it.
double Session::time_steps() {
  ExecContext ctx = engine_.step_ctx();
  ctx.mode = Mode::train;
  ctx.rng = RngKey{config_.train.seed}.fold(3);
  ctx.part = part();
  const MicroBatch batch = objective_->noise(ctx.part.count);
  std::vector<double> seconds;
  for (int64_t i = 0; i < untimed_steps + timed_steps; ++i) {
    Stopwatch watch;
    recorded_step_->run(
        ctx, config_.train.accumulate, [&](int64_t) { return batch; }, gentle * config_.optim.lr);
    if (engine_.gpu) engine_.gpu->synchronize();
    if (i >= untimed_steps) seconds.push_back(watch.lap());
  }
  reduce_over_ranks(*ctx.comm, seconds, ReduceOp::max);
  return timing_of(std::move(seconds)).median;
}

/// All that `build` made, and its memory; when every rank is done with it.
void Session::drop_model() {
  engine_.ctx.comm->barrier();
  recorded_step_.reset();
  train_step_.reset();
  objective_.reset();
  average_.reset();
  optimizer_.reset();
  model_.reset();
  for (CachingAllocator* memory : {&engine_.allocator, &engine_.step_memory, &engine_.host}) memory->trim();
}

}  // namespace ermoe
