#include "cuda/runtime/tensor_map.h"

#include "core/error.h"
#include "cuda/runtime/check.h"

#include <cudaTypedefs.h>

namespace ermoe::cuda {
namespace {

/// The driver's function, found at run time so that no program links the driver's library.
PFN_cuTensorMapEncodeTiled_v12000 find_encoder() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  cuda_check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found),
             "cudaGetDriverEntryPointByVersion");
  check(found == cudaDriverEntryPointSuccess && function != nullptr, "[cuda] the driver has no cuTensorMapEncodeTiled");
  return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
}

}  // namespace

CUtensorMap tensor_map(const TensorMapArgs& args) {
  static const PFN_cuTensorMapEncodeTiled_v12000 encode = find_encoder();
  CUtensorMap map;
  const auto size = [](int64_t n) { return static_cast<cuuint64_t>(n); };
  const cuuint64_t sizes[] = {size(args.x), size(args.y), size(args.z)};
  const cuuint64_t strides[] = {size(args.x) * sizeof(bf16), size(args.x * args.y) * sizeof(bf16)};
  const cuuint32_t box[] = {static_cast<cuuint32_t>(args.box_x), static_cast<cuuint32_t>(args.box_y), 1}, steps[] = {1, 1, 1};
  const CUresult status = encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, args.z > 0 ? 3 : 2, const_cast<bf16*>(args.data), sizes, strides,
                                 box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                                 CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  check(status == CUDA_SUCCESS, "[cuda] cuTensorMapEncodeTiled: error {} for ({}, {}, {}) in boxes of ({}, {})", static_cast<int>(status),
        args.z, args.y, args.x, args.box_y, args.box_x);
  return map;
}

}  // namespace ermoe::cuda
