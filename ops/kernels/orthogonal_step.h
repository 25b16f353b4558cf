// Contract of the steps on the Stiefel manifold; ops/orthogonal_step.h says what each does. Read next:
// ops/cpu/orthogonal_step.cpp.
#pragma once

#include "core/bf16.h"
#include "core/device.h"

#include <cstdint>
#include <limits>

namespace ermoe {

/// How a matrix that left the manifold comes back. All agree with the tangent step to first order in the learning rate.
enum class StiefelMethod {
  newton_schulz,  // nearest orthonormal matrix, by Q + ½ Q (I - QᵀQ) repeated: two GEMMs, batched
  gram_schmidt,   // Q of the QR factorisation with a positive diagonal of R, by Householder reflections
  cholesky_qr,    // the same Q, by Cholesky factors of QᵀQ, twice (Fukaya et al., CholeskyQR2, 2014)
  cayley,         // no way back but a rotation that never leaves (Wen & Yin, Math. Program. 142, 2013)
};

struct StiefelDims {
  int64_t batch = 0;
  int64_t rows = 0;  // m
  int64_t cols = 0;  // n <= m
};

/// When Newton-Schulz stops. The promise to the outside is looser than `tolerance`, by what rounding may hide.
template <typename T>
struct NewtonSchulzLimits {
  static constexpr bool is_float = std::numeric_limits<T>::digits < 30;
  static constexpr double tolerance = is_float ? 2e-6 : 1e-12;  // of max |I - qᵀq| as measured in T
  static constexpr double rounding = is_float ? 5e-7 : 2e-13;   // what measuring and storing in T may add
  static constexpr int step_iterations = 4;                     // after an optimizer step
  static constexpr int polar_iterations = 60;                   // from afar
};

namespace cpu {

/// Elements of the scratch memory that the functions below want.
int64_t stiefel_scratch(const StiefelDims& dims, StiefelMethod method);

template <typename T>
void stiefel_step(const StiefelDims& dims, StiefelMethod method, double lr, T* q /* (batch,m,n) */, const T* direction /* (batch,m,n) */,
                  T* scratch);
template <typename T>
void retract(const StiefelDims& dims, StiefelMethod method, T* q, T* scratch);
template <typename T>
void polar_project(const StiefelDims& dims, T* q, T* scratch);
/// `scratch`: m n + n² doubles.
template <typename T>
double orthogonality_residual(const StiefelDims& dims, const T* q, double* scratch);
template <typename T>
double penalty_gradient(const StiefelDims& dims, const T* q, double lambda, T* dq, T* scratch);

}  // namespace cpu

namespace cuda {

// Factors are float on a GPU, whatever the model computes in. Nothing waits for the device.

/// Elements of the scratch memory that the functions below want.
int64_t stiefel_scratch(const StiefelDims& dims, StiefelMethod method);

/// `twin` (batch,m,n), null for none: q rounded to bf16, before and after.
template <typename T>
void stiefel_step(const Stream& stream, const StiefelDims& dims, StiefelMethod method, double lr, T* q, const T* direction, bf16* twin,
                  T* scratch);
/// Whether a step takes its direction in bf16 as it is: Newton-Schulz on the tensor cores.
bool takes_bf16_direction(const StiefelDims& dims, StiefelMethod method, const float* q, const bf16* direction, const bf16* twin);
/// That step; `direction` is used up. Scratch as for newton_schulz.
void stiefel_step(const Stream& stream, const StiefelDims& dims, double lr, float* q, bf16* direction, bf16* twin, float* scratch);
/// `twin` is q rounded to bf16 afterwards.
template <typename T>
void retract(const Stream& stream, const StiefelDims& dims, StiefelMethod method, T* q, bf16* twin, T* scratch);
template <typename T>
void polar_project(const Stream& stream, const StiefelDims& dims, T* q, T* scratch);
/// worst (1), which holds a number >= 0, becomes the larger of itself and max |qᵀq - I|.
template <typename T>
void orthogonality_residual(const Stream& stream, const StiefelDims& dims, const T* q, double* worst);
/// dq += 4 λ q (qᵀq - I); penalty (1) += λ Σ |qᵀq - I|². Scratch as for newton_schulz.
template <typename T>
void penalty_gradient(const Stream& stream, const StiefelDims& dims, const T* q, double lambda, T* dq, double* penalty, T* scratch);

}  // namespace cuda
}  // namespace ermoe
