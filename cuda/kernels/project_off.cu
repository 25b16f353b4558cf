// Two float products an expert on the GPU, all experts at once: expert e's columns of the basis start e·R behind the first.
// Once an optimizer step, and small. Contract: ops/kernels/project_off.h.
#include "ops/kernels/project_off.h"

#include "cuda/runtime/gemm.h"

namespace ermoe::cuda {

template <>
void project_off_basis(const Stream& stream, const ProjectOffDims& d, const float* basis, float* rest, float* products) {
  GemmShape along = packed_gemm(Trans::yes, Trans::no, d.R, d.c, d.D, d.E), back = packed_gemm(Trans::no, Trans::no, d.D, d.c, d.R, d.E);
  along.lda = back.lda = d.E * d.R;
  along.stride_a = back.stride_a = d.R;
  gemm(stream, along, 1, basis, rest, 0, products);
  gemm(stream, back, -1, basis, products, 1, rest);
}

}  // namespace ermoe::cuda
