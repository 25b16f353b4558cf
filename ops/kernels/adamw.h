// Contract of the optimizer kernels. What is known only when the gradients are (their norm, whether the step may be taken, how
// many were) stays where they are, in a `StepState`, so that no host waits for a device. Read next: ops/cpu/adamw.cpp.
#pragma once

#include "core/bf16.h"
#include "core/device.h"

#include <cmath>
#include <cstdint>

namespace ermoe {

/// One Adam step's numbers, the same for every element of a parameter.
struct AdamDims {
  int64_t numel = 0;
  double lr = 0, beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  double decay = 0;                         // weight decay, decoupled: p -= lr · decay · p
  double grad_scale = 1;                    // clipping: the gradient is multiplied by this
  double correction1 = 1, correction2 = 1;  // 1 - βᵗ
};

/// What holds for all parameters over the whole training.
struct AdamRule {
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
};

/// What holds for all parameters in one step. In memory of the device that steps.
struct StepState {
  double lr = 0;                            // set before the step, from the schedule
  double grad_norm = 0;                     // before clipping
  double grad_scale = 1;                    // clipping
  double correction1 = 1, correction2 = 1;  // 1 - βᵗ
  int64_t steps = 0;                        // t: accepted steps, this one too
  int32_t accepted = 1;                     // 0: this step changes nothing
};

/// One parameter of a table.
template <typename T>
struct AdamwRow {
  T* p = nullptr;  // (numel), as all others
  const T* g = nullptr;
  T *m = nullptr, *v = nullptr;
  bf16* compute = nullptr;  // what ops read; null: p itself
  int64_t numel = 0;
  double lr_scale = 1, decay = 0;
};

/// A piece of a row, as large as a block of threads should take.
struct AdamwPiece {
  int32_t row = 0;
  int64_t begin = 0;
};
inline constexpr int64_t adamw_piece = 8192;

/// Squares are added up over pieces of this size first.
inline constexpr int64_t norm_piece = 16384;
constexpr int64_t norm_pieces(int64_t numel) { return (numel + norm_piece - 1) / norm_piece; }

/// Takes the step that the state is at.
ERMOE_HD inline void count_step(const AdamRule& rule, double grad_scale, StepState& state) {
  state.accepted = 1;
  state.steps += 1;
  state.grad_scale = grad_scale;
  state.correction1 = 1 - std::pow(rule.beta1, static_cast<double>(state.steps));
  state.correction2 = 1 - std::pow(rule.beta2, static_cast<double>(state.steps));
}

/// The numbers of a step for one parameter.
ERMOE_HD inline AdamDims adam_dims(const AdamRule& rule, const StepState& state, double lr_scale, double decay) {
  return {.lr = state.lr * lr_scale,
          .beta1 = rule.beta1,
          .beta2 = rule.beta2,
          .eps = rule.eps,
          .decay = decay,
          .grad_scale = state.grad_scale,
          .correction1 = state.correction1,
          .correction2 = state.correction2};
}

/// An average's decay in its `updates`-th update: a fresh one follows closely, so that the starting values do not linger.
ERMOE_HD inline double average_decay(double decay, int64_t updates) {
  const double early = (1.0 + static_cast<double>(updates)) / (10.0 + static_cast<double>(updates));
  return early < decay ? early : decay;
}

namespace cpu {

/// m, v (numel) are updated; p (numel) is stepped in place.
template <typename T>
void adamw_step(const AdamDims& dims, T* p, const T* g, T* m, T* v);

/// m, v are updated; direction (numel) = lr · m̂ / (√v̂ + eps), for parameters that step on a manifold. 0 where the step is refused.
/// To: T or bf16.
template <typename T, typename To>
void adam_direction(const AdamRule& rule, const StepState* state, int64_t numel, double lr_scale, const T* g, T* m, T* v, To* direction);

/// Every row of a table, unless the step is refused.
template <typename T>
void adamw_table(const AdamRule& rule, int64_t rows, const AdamwRow<T>* table, const StepState* state);

/// Σ x², accumulated in double over fixed chunks: the same bits for any number of threads.
template <typename T>
void squared_norm(int64_t numel, const T* x, double* sum /* () */);

/// Takes or refuses a step whose gradients have the squared norms `squares` (count): state gets norm, clipping and corrections,
/// and counts it where it is taken. It is refused where the norm or one of `faults` (fault_count) is not finite, or a fault is
/// not 0. `clip` 0: no clipping.
void judge_step(const AdamRule& rule, double clip, int64_t count, const double* squares, int64_t fault_count, const float* faults,
                StepState* state);

/// *sum = Σ values (count), in their order.
void add_up(int64_t count, const double* values, double* sum);

/// A step that need not be judged: state gets lr, scale and corrections, and counts it.
void accept_step(const AdamRule& rule, double lr, double grad_scale, StepState* state);

/// average = decay · average + (1 - decay) · x. With a state: by `average_decay` of its steps, and not after a refused one.
template <typename T>
void moving_average(int64_t numel, double decay, const StepState* state, const T* x, T* average);

}  // namespace cpu

namespace cuda {

// Values, moments and gradients of trained parameters are f32 on a GPU whatever ops compute in: T = float alone, but for
// `squared_norm`, which looks at bf16 too, and the gradient that `adam_direction` takes (G: float or bf16).

template <typename T>
void adamw_step(const Stream& stream, const AdamDims& dims, T* p, const T* g, T* m, T* v);
template <typename T, typename G, typename To>
void adam_direction(const Stream& stream, const AdamRule& rule, const StepState* state, int64_t numel, double lr_scale, const G* g, T* m,
                    T* v, To* direction);
/// `table` and `pieces` are in the device's memory.
template <typename T>
void adamw_table(const Stream& stream, const AdamRule& rule, const AdamwRow<T>* table, int64_t piece_count, const AdamwPiece* pieces,
                 const StepState* state);
template <typename T>
void squared_norm(const Stream& stream, int64_t numel, const T* x, float* partials /* (norm_pieces) */, double* sum);
void add_up(const Stream& stream, int64_t count, const double* values, double* sum);
void judge_step(const Stream& stream, const AdamRule& rule, double clip, int64_t count, const double* squares, int64_t fault_count,
                const float* faults, StepState* state);
void accept_step(const Stream& stream, const AdamRule& rule, double lr, double grad_scale, StepState* state);
/// state->lr = lr, by a launch: it may be queued while the device works, outside a graph.
void set_learning_rate(const Stream& stream, double lr, StepState* state);
template <typename T>
void moving_average(const Stream& stream, int64_t numel, double decay, const StepState* state, const T* x, T* average);

}  // namespace cuda
}  // namespace ermoe
