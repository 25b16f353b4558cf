#include "tools/bench/comm_bench.h"

#include "core/enum_names.h"
#include "core/gather.h"

#include <algorithm>
#include <vector>

namespace ermoe {
namespace {

/// How many of the bytes a rank must send at least, as a share of them all.
double bus_share(Collective collective, int ranks) {
  const double others = static_cast<double>(ranks - 1) / ranks;
  switch (collective) {
    case Collective::all_reduce: return 2 * others;
    case Collective::broadcast: return 1;
    default: return others;
  }
}

/// One size of one collective.
class CommRun {
 public:
  CommRun(const Engine& engine, const CommBenchOptions& options, Collective collective, int64_t bytes)
      : engine_(engine), comm_(*engine.ctx.comm), collective_(collective), rows_(bytes / 4 / comm_.size()), bytes_(bytes) {
    // Every rank must do the same: neither may depend on a clock.
    calls_ = std::clamp<int64_t>((int64_t{16} << 20) / bytes, engine.gpu ? 10 : 1, 20);  // in a row, as NCCL's own benchmark makes them
    rounds_ = engine.gpu ? 20 : std::clamp<int64_t>((int64_t{256} << 20) / bytes, 3, 20);
    from_ = engine.ctx.empty({rows_ * comm_.size()}, DType::f32, "benchmark");
    to_ = engine.ctx.empty({rows_ * comm_.size()}, DType::f32, "benchmark");
    for (const Tensor& t : {from_, to_}) zero(t);
    if (engine.gpu && options.running == Running::recorded) recording_ = engine.gpu->record([this] { call_all(); });
  }

  CommResult run() {
    constexpr int64_t warmup = 3;
    WorkClock clock(engine_);
    std::vector<double> seconds;
    for (int64_t round = 0; round < warmup + rounds_; ++round) {
      if (engine_.gpu) engine_.gpu->synchronize();
      comm_.barrier();
      clock.start();
      if (recording_) {
        recording_->replay();
      } else {
        call_all();
      }
      const double passed = clock.stop();
      if (round >= warmup) seconds.push_back(passed / static_cast<double>(calls_));
    }
    reduce_over_ranks(comm_, seconds, ReduceOp::max);
    CommResult result{.collective = collective_, .bytes = bytes_, .time = timing_of(std::move(seconds))};
    result.algorithm_rate = static_cast<double>(bytes_) / result.time.median;
    result.bus_rate = bus_share(collective_, comm_.size()) * result.algorithm_rate;
    return result;
  }

 private:
  void call_all() {
    for (int64_t i = 0; i < calls_; ++i) call();
  }

  void call() {
    const Tensor part = to_.slice(0, rows_);
    const std::vector<int64_t> even(static_cast<size_t>(comm_.size()), rows_);
    switch (collective_) {
      case Collective::all_reduce: return comm_.all_reduce(from_, ReduceOp::sum);
      case Collective::reduce_scatter: return comm_.reduce_scatter(from_, part);
      case Collective::all_gather: return comm_.all_gather(from_.slice(0, rows_), to_);
      case Collective::broadcast: return comm_.broadcast(from_, 0);
      case Collective::all_to_all: return comm_.all_to_all(from_, even, to_, even);
    }
  }

  const Engine& engine_;
  Communicator& comm_;
  Collective collective_;
  int64_t rows_, bytes_, calls_ = 1, rounds_ = 1;
  Tensor from_, to_;  // (W*rows) f32
  std::unique_ptr<Recording> recording_;
};

}  // namespace

void bench_collectives(const Engine& engine, const CommBenchOptions& options, const std::function<void(const CommResult&)>& done) {
  bool found = false;
  for (size_t i = 0; i < enum_names<Collective>().size(); ++i) {
    const auto collective = static_cast<Collective>(i);
    if (!options.only.empty() && options.only != enum_name(collective)) continue;
    found = true;
    for (int64_t bytes = options.least; bytes <= options.most; bytes *= 4) done(CommRun(engine, options, collective, bytes).run());
  }
  check_input(found, "collective {} is not known: choose from {}", options.only, fmt::join(enum_names<Collective>(), ", "));
}

}  // namespace ermoe
