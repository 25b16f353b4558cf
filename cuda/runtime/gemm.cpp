#include "cuda/runtime/gemm.h"

#include "core/error.h"
#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"

#include <algorithm>

namespace ermoe::cuda {

/// A product as cublasLt sees it: everything column-major, so that a row-major C = A B is its Cᵀ = Bᵀ Aᵀ. Its first operand
/// is our B.
struct GemmPlan {
  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr;
  cublasLtMatmulAlgo_t algorithm{};
  bool found = false;

  GemmPlan() = default;
  ~GemmPlan() {
    for (cublasLtMatrixLayout_t layout : {a, b, c})
      if (layout != nullptr) cublasLtMatrixLayoutDestroy(layout);
    if (product != nullptr) cublasLtMatmulDescDestroy(product);
  }
  GemmPlan(const GemmPlan&) = delete;
  GemmPlan& operator=(const GemmPlan&) = delete;
};

GemmPlans::GemmPlans() = default;
GemmPlans::~GemmPlans() = default;

namespace {

/// The largest power of two, up to 256, that divides the address and the way to the next matrix.
uint32_t alignment_of(const void* pointer, int64_t stride, size_t element) {
  const uint64_t bits = reinterpret_cast<uintptr_t>(pointer) | static_cast<uint64_t>(stride) * element | 256u;
  return static_cast<uint32_t>(bits & (~bits + 1));
}

template <typename T>
void set(cublasLtMatmulDesc_t product, cublasLtMatmulDescAttributes_t attribute, T value) {
  blas_check(cublasLtMatmulDescSetAttribute(product, attribute, &value, sizeof value), "cublasLtMatmulDescSetAttribute");
}
template <typename T>
void set(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute, T value) {
  blas_check(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value), "cublasLtMatmulPreferenceSetAttribute");
}

/// Of a stored row-major matrix of `rows` rows of which `cols` elements count.
cublasLtMatrixLayout_t layout_of(cudaDataType_t type, int64_t rows, int64_t cols, int64_t ld, const GemmShape& shape, int64_t stride) {
  cublasLtMatrixLayout_t layout = nullptr;
  blas_check(cublasLtMatrixLayoutCreate(&layout, type, static_cast<uint64_t>(cols), static_cast<uint64_t>(rows), ld),
             "cublasLtMatrixLayoutCreate");
  const auto batch = static_cast<int32_t>(shape.batch);
  blas_check(cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, sizeof batch), "batch count");
  blas_check(cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof stride), "batch stride");
  return layout;
}

struct Preference {
  cublasLtMatmulPreference_t handle = nullptr;
  Preference() { blas_check(cublasLtMatmulPreferenceCreate(&handle), "cublasLtMatmulPreferenceCreate"); }
  ~Preference() { cublasLtMatmulPreferenceDestroy(handle); }
  Preference(const Preference&) = delete;
  Preference& operator=(const Preference&) = delete;
};

/// Asks cublasLt for its best algorithm. Sums cut along k may be put together from float parts in a fixed order, not in
/// place, nor from parts rounded to bf16.
void find_algorithm(const StreamState& state, const GemmPlans::Key& key, GemmPlan& plan) {
  if (!state.library_products) return;  // none, then
  const Preference preference;
  set(preference.handle, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{state.scratch_bytes});
  set(preference.handle, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
  set(preference.handle, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, key.align_b);
  set(preference.handle, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, key.align_a);
  set(preference.handle, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, key.align_c);
  set(preference.handle, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, key.align_c);
  cublasLtMatmulHeuristicResult_t result{};
  int count = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(state.blas_lt, plan.product, plan.b, plan.a, plan.c, plan.c, preference.handle, 1, &result, &count);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE || count == 0) return;
  blas_check(status, "cublasLtMatmulAlgoGetHeuristic");
  plan.found = result.state == CUBLAS_STATUS_SUCCESS;
  plan.algorithm = result.algo;
}

/// How the bias is accessed depends on its address's alignment, so that is known before the search.
std::unique_ptr<GemmPlan> make_plan(const StreamState& state, const GemmPlans::Key& key, const void* bias) {
  const GemmShape& s = key.shape;
  const cudaDataType_t in = key.in_bytes == 2 ? CUDA_R_16BF : CUDA_R_32F, out = key.out_bytes == 2 ? CUDA_R_16BF : CUDA_R_32F;
  const bool ta = s.ta == Trans::yes, tb = s.tb == Trans::yes, tf32 = key.in_bytes == 4 && key.products == FloatProducts::tf32;
  auto plan = std::make_unique<GemmPlan>();
  blas_check(cublasLtMatmulDescCreate(&plan->product, tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F),
             "cublasLtMatmulDescCreate");
  set(plan->product, CUBLASLT_MATMUL_DESC_TRANSA, tb ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(plan->product, CUBLASLT_MATMUL_DESC_TRANSB, ta ? CUBLAS_OP_T : CUBLAS_OP_N);
  if (bias != nullptr) {
    set(plan->product, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    set(plan->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
  }
  plan->a = layout_of(in, ta ? s.k : s.m, ta ? s.m : s.k, s.lda, s, s.stride_a);
  plan->b = layout_of(in, tb ? s.n : s.k, tb ? s.k : s.n, s.ldb, s, s.stride_b);
  plan->c = layout_of(out, s.m, s.n, s.ldc, s, s.stride_c);
  find_algorithm(state, key, *plan);
  return plan;
}

void check_sizes(const GemmShape& s) {
  check(std::max({s.m, s.n, s.k, s.lda, s.ldb, s.ldc, s.batch}) <= INT32_MAX, "[gemm] ({}, {}) times ({}, {}), {} times", s.m, s.k, s.k,
        s.n, s.batch);
}

/// The plan for a product, looked up or made.
template <typename In, typename Out>
GemmPlan& plan_of(const StreamState& state, const GemmShape& s, const In* a, const In* b, const Out* c, FloatProducts products,
                  const Out* bias) {
  const GemmPlans::Key key{.shape = s,
                           .in_bytes = sizeof(In),
                           .out_bytes = sizeof(Out),
                           .products = products,
                           .align_a = alignment_of(a, s.stride_a, sizeof(In)),
                           .align_b = alignment_of(b, s.stride_b, sizeof(In)),
                           .align_c = alignment_of(c, s.stride_c, sizeof(Out)),
                           .align_bias = bias == nullptr ? 0 : alignment_of(bias, 0, sizeof(Out))};
  std::unique_ptr<GemmPlan>& plan = state.gemm_plans->plans[key];
  if (!plan) plan = make_plan(state, key, bias);
  return *plan;
}

/// A product whose plan was found.
void run(const StreamState& state, const GemmPlan& plan, float alpha, const void* a, const void* b, float beta, void* c, const void* bias) {
  if (bias != nullptr) set(plan.product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
  blas_check(cublasLtMatmul(state.blas_lt, plan.product, &alpha, b, plan.b, a, plan.a, &beta, c, plan.c, c, plan.c, &plan.algorithm,
                            state.scratch, state.scratch_bytes, state.stream),
             "cublasLtMatmul");
}

}  // namespace

template <typename In, typename Out>
void gemm(const Stream& stream, const GemmShape& s, float alpha, const In* a, const In* b, float beta, Out* c, const Out* bias,
          FloatProducts products) {
  if (s.m == 0 || s.n == 0 || s.batch == 0) return;
  check_sizes(s);
  if (s.k == 0) return plain_gemm(stream, s, alpha, a, b, beta, c, bias);
  const StreamState& state = state_of(stream);
  const GemmPlan& plan = plan_of(state, s, a, b, c, products, bias);
  if (!plan.found) return plain_gemm(stream, s, alpha, a, b, beta, c, bias);
  run(state, plan, alpha, a, b, beta, c, bias);
}

template void gemm(const Stream&, const GemmShape&, float, const float*, const float*, float, float*, const float*, FloatProducts);
template void gemm(const Stream&, const GemmShape&, float, const bf16*, const bf16*, float, bf16*, const bf16*, FloatProducts);
template void gemm(const Stream&, const GemmShape&, float, const bf16*, const bf16*, float, float*, const float*, FloatProducts);

}  // namespace ermoe::cuda
