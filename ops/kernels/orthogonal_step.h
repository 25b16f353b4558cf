// Contract of the steps on the Stiefel manifold; ops/orthogonal_step.h says what each does. Read next:
// ops/cpu/orthogonal_step.cpp.
#pragma once

#include "core/device.h"
#include "ops/orthogonal_step.h"

#include <cstdint>
#include <limits>

namespace ermoe {

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

int64_t stiefel_scratch(const StiefelDims& dims, StiefelMethod method);

template <typename T>
void stiefel_step(const Stream& stream, const StiefelDims& dims, StiefelMethod method, double lr, T* q, const T* direction, T* scratch);
template <typename T>
void retract(const Stream& stream, const StiefelDims& dims, StiefelMethod method, T* q, T* scratch);
template <typename T>
void polar_project(const Stream& stream, const StiefelDims& dims, T* q, T* scratch);
template <typename T>
double orthogonality_residual(const Stream& stream, const StiefelDims& dims, const T* q, double* scratch);
template <typename T>
double penalty_gradient(const Stream& stream, const StiefelDims& dims, const T* q, double lambda, T* dq, T* scratch);

}  // namespace cuda
}  // namespace ermoe
