// Ops whose output alone is bf16, made on a GPU from factors in f32.
#pragma once

#include "tests/ops/op_case.h"

#if defined(ERMOE_WITH_CUDA)
namespace ermoe::testing {

/// The op's output and gradients in bf16 on the GPU against those in f32 on the CPU. Its inputs are f32 on both.
inline void expect_bf16_output_agrees(const OpCase& narrow, const OpCase& wide) {
  TestBench cpu;
  GpuBench gpu, again;
  const OpRun want = run_op(cpu, wide, DType::f32), got = run_op(gpu, narrow, DType::f32), repeated = run_op(again, narrow, DType::f32);
  for (size_t i = 0; i < want.tensors.size(); ++i) {
    EXPECT_LE(dissimilarity(got.tensors[i], want.tensors[i]), 1e-4) << "tensor " << i << " (0: output, then gradients)";
    EXPECT_EQ(got.tensors[i], repeated.tensors[i]);
  }
}

}  // namespace ermoe::testing
#endif
