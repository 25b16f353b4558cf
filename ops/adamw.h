// Adam with decoupled weight decay (Loshchilov & Hutter, arXiv 1711.05101), in place and off the tape, and what an
// optimizer needs around it: the gradient norm and the moving average of weights.
#pragma once

#include "core/context.h"
#include "ops/kernels/adamw.h"

namespace ermoe {

/// Steps p in place; all tensors have p's shape. `step.numel` is filled in here.
void adamw_step(const ExecContext& ctx, AdamDims step, const Tensor& p, const Tensor& g, const Tensor& m, const Tensor& v);

/// Updates m and v and writes the Adam direction, for parameters that step on a manifold.
void adam_direction(const ExecContext& ctx, AdamDims step, const Tensor& g, const Tensor& m, const Tensor& v, const Tensor& direction);

/// Σ t². Not finite where any element is not.
double squared_norm(const ExecContext& ctx, const Tensor& t);

/// average = decay · average + (1 - decay) · x.
void moving_average(const ExecContext& ctx, double decay, const Tensor& x, const Tensor& average);

}  // namespace ermoe
