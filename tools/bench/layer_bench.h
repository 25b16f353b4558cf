// One mixture-of-experts layer alone, forward and backward: router, dispatch, experts, combine, on random tokens. On several ranks, each
// with tokens of its own, experts are on each rank or spread over some; gradients are not reduced, so that the two are compared alike.
// What the gradients' way costs beside it: tools/bench/comm_bench.h.
#pragma once

#include "models/vit.h"
#include "tools/bench/measure.h"
#include "tools/bench/step_bench.h"

#include <memory>

namespace ermoe {

struct LayerBenchOptions {
  Workload workload = Workload::s16;
  BenchLayer layer = BenchLayer::ermoe;  // not `dense`
  Precision precision = Precision::auto_;
  int64_t batch = 0;  // images a rank; 0: see batch_of
  int64_t steps = 20;
  int64_t warmup = 5;        // in which the router's statistics settle, too
  int64_t expert_ranks = 1;  // ranks that hold the experts together, as Engine::spread_experts was told
  int64_t chunks = 0;        // in which rows travel to them, likewise
  Running running = Running::recorded;
};

struct LayerBenchResult {
  Timing pass;             // forward and backward, each time on the rank that took longest
  int64_t tokens = 0;      // of a rank
  int64_t slots = 0;       // rows that a rank sends to experts, wherever they are
  int64_t most_rows = 0;   // that came to the experts of one rank: of the last pass, on the rank with the most
  int64_t sent_bytes = 0;  // to other ranks by one rank in that pass, both ways: by the one that sends most
  bool recorded = false;   // as one CUDA graph
};

class LayerBench {
 public:
  /// `engine` must outlive this. All ranks make one at the same time. Throws InputError where the options name no layer with experts.
  LayerBench(Engine& engine, const LayerBenchOptions& options);
  ~LayerBench();

  /// All ranks call it at the same time.
  LayerBenchResult run();

  /// One pass; its gradients stay where they are until the next one.
  void pass();
  Vit& model() { return model_; }

 private:
  MoeLayer& layer() { return *model_.moe_layers().front(); }
  void settle_statistics();
  void record();
  void count_rows(LayerBenchResult& result);

  Engine& engine_;
  ExecContext ctx_;  // of training steps
  LayerBenchOptions options_;
  Vit model_;
  Tensor x_, c_, dy_;                 // (B, T, D) in what ops compute in
  RoutingRecord route_;               // of the last pass
  std::shared_ptr<const void> kept_;  // the cache that recorded work goes on using
  std::unique_ptr<Recording> recording_;
};

}  // namespace ermoe
