// How benchmarks are shown: lines as they come, or one JSON object at the end.
#pragma once

#include "tools/bench/comm_bench.h"
#include "tools/bench/layer_bench.h"
#include "tools/bench/op_bench.h"
#include "tools/bench/orthogonality_bench.h"
#include "tools/bench/step_bench.h"

#include <nlohmann/json_fwd.hpp>

#include <memory>

namespace ermoe {

/// What all figures of a run were measured on.
struct BenchHead {
  std::string device;  // "NVIDIA H100 80GB HBM3, 79.2 GiB"
  DType precision = DType::f32;
  int threads = 1;
  bool gpu = false;
  int ranks = 1;
  int64_t kernels = 0;  // how many of a step's longest kernels are named
};

class BenchReport {
 public:
  enum class Format { table, json };

  BenchReport(Format format, BenchHead head);
  ~BenchReport();

  /// What work is compared with from here on: FLOP/s of one large product, and bytes a second of one large copy.
  void set_matrix_rate(double rate);
  void set_copy_bandwidth(double rate);
  void add(const StepBenchOptions& options, const StepBenchResult& result);
  void add(const OpCase& op, const OpResult& result);
  void add(const OrthogonalityOptions& options, const OrthogonalityResult& result);
  void add(const CommResult& result);
  void add(const LayerBenchOptions& options, const LayerBenchResult& result);
  /// Prints the JSON object.
  void finish();

 private:
  void print(const StepBenchOptions& options, const StepBenchResult& result) const;
  void print(const StepBenchResult& result) const;
  void print(const Breakdown& breakdown, double step_seconds) const;
  void print(const OpCase& op, const OpResult& result);

  Format format_;
  BenchHead head_;
  double matrix_rate_ = 0, copy_bandwidth_ = 0;  // 0: not measured
  bool op_head_ = false, comm_head_ = false;
  std::unique_ptr<nlohmann::ordered_json> entries_;  // {"device": …, "precision": …, "results": […]}
};

}  // namespace ermoe
