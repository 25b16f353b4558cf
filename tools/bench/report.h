// How benchmarks are shown: lines as they come, or one JSON object at the end.
#pragma once

#include "tools/bench/op_bench.h"
#include "tools/bench/orthogonality_bench.h"
#include "tools/bench/step_bench.h"

#include <nlohmann/json_fwd.hpp>

#include <memory>

namespace ermoe {

class BenchReport {
 public:
  enum class Format { table, json };

  BenchReport(Format format, int threads);
  ~BenchReport();

  /// What steps are compared with from here on, in GFLOP/s.
  void set_matrix_rate(double gflops) { matrix_rate_ = gflops; }
  void add(const StepBenchOptions& options, const StepBenchResult& result);
  void add(const OpCase& op, const OpResult& result);
  void add(const OrthogonalityOptions& options, const OrthogonalityResult& result);
  /// Prints the JSON object.
  void finish();

 private:
  void print(const StepBenchOptions& options, const StepBenchResult& result);

  Format format_;
  int threads_;
  double matrix_rate_ = 0;
  bool op_head_ = false;
  std::unique_ptr<nlohmann::ordered_json> entries_;  // {"blas": …, "threads": …, "results": […]}
};

}  // namespace ermoe
