// Results must not depend on the number of threads, down to the last bit.
#pragma once

#include "tests/ops/op_case.h"

#include <omp.h>

namespace ermoe::testing {

/// Runs the case with 1, 2 and 5 threads and compares every bit of output and gradients.
inline void expect_same_bits_for_any_threads(const OpCase& op) {
  const int before = omp_get_max_threads();
  std::vector<OpRun> runs;
  for (int threads : {1, 2, 5}) {
    omp_set_num_threads(threads);
    TestBench bench;
    runs.push_back(run_op(bench, op, DType::f32));
  }
  omp_set_num_threads(before);
  for (size_t i = 0; i < runs[0].tensors.size(); ++i) {
    EXPECT_EQ(runs[0].tensors[i], runs[1].tensors[i]) << "tensor " << i << ", 1 against 2 threads";
    EXPECT_EQ(runs[0].tensors[i], runs[2].tensors[i]) << "tensor " << i << ", 1 against 5 threads";
  }
}

}  // namespace ermoe::testing
