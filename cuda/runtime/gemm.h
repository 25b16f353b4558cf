// Matrix products on the GPU: row-major matrices, single or a batch of them, on cublasLt. What it finds best for a shape is
// looked up once and kept; only algorithms whose sums have a fixed order are taken. Read next: cuda/runtime/gemm.cpp.
#pragma once

#include "core/bf16.h"
#include "core/device.h"
#include "ops/kernels/trans.h"

#include <compare>
#include <cstdint>
#include <map>
#include <memory>

namespace ermoe::cuda {

/// C (m, n) = alpha op(A) op(B) + beta C; op(A) is (m, k), op(B) is (k, n).
struct GemmShape {
  Trans ta = Trans::no, tb = Trans::no;
  int64_t m = 0, n = 0, k = 0;
  int64_t lda = 0, ldb = 0, ldc = 0;  // row lengths as stored, in elements
  int64_t batch = 1;
  int64_t stride_a = 0, stride_b = 0, stride_c = 0;  // from one matrix of the batch to the next, in elements

  auto operator<=>(const GemmShape&) const = default;
};

/// Contiguous matrices, `batch` of them one after the other.
inline GemmShape packed_gemm(Trans ta, Trans tb, int64_t m, int64_t n, int64_t k, int64_t batch = 1) {
  return {.ta = ta,
          .tb = tb,
          .m = m,
          .n = n,
          .k = k,
          .lda = ta == Trans::yes ? m : k,
          .ldb = tb == Trans::yes ? k : n,
          .ldc = n,
          .batch = batch,
          .stride_a = m * k,
          .stride_b = k * n,
          .stride_c = m * n};
}

/// What float operands are multiplied in: float itself, or TF32 (10 bits of the fraction). Sums are float in either case.
enum class FloatProducts { exact, tf32 };

/// Runs a product on the stream. In and Out: float and float, bf16 and bf16, bf16 and float. `bias` (n), of type Out, is
/// added to every row; null for none. With beta 0 C is not read. Empty results are fine, and so is k = 0.
template <typename In, typename Out>
void gemm(const Stream& stream, const GemmShape& shape, float alpha, const In* a, const In* b, float beta, Out* c,
          const Out* bias = nullptr, FloatProducts products = FloatProducts::exact);

/// The same as `gemm` by one plain kernel that takes any shape and alignment: where cublasLt has no algorithm, k = 0 among them.
template <typename In, typename Out>
void plain_gemm(const Stream& stream, const GemmShape& shape, float alpha, const In* a, const In* b, float beta, Out* c, const Out* bias);

struct GemmPlan;

/// The algorithms found so far on one stream; it belongs to whoever owns the stream.
class GemmPlans {
 public:
  GemmPlans();
  ~GemmPlans();
  GemmPlans(const GemmPlans&) = delete;
  GemmPlans& operator=(const GemmPlans&) = delete;

  /// Everything that the choice of an algorithm depends on: types in bytes, and what addresses are multiples of.
  struct Key {
    GemmShape shape;
    int in_bytes, out_bytes;
    FloatProducts products;
    uint32_t align_a, align_b, align_c, align_bias;  // 0: no bias
    auto operator<=>(const Key&) const = default;
  };
  std::map<Key, std::unique_ptr<GemmPlan>> plans;
};

}  // namespace ermoe::cuda
