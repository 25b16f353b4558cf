#include "ops/orthogonal_step.h"

#include "core/flat.h"
#include "ops/kernels/orthogonal_step.h"
#include "ops/optional_tensor.h"

namespace ermoe {
namespace {

StiefelDims stiefel_dims(const char* op, const Tensor& q) {
  check(q.defined() && q.shape().rank() >= 2, "[{}] wants q (…, m, n) but got {}", op, q.shape().str());
  const int64_t m = q.shape()[-2], n = q.shape()[-1];
  check(m >= n && n >= 1, "[{}] q {} has more columns than rows: they cannot be orthonormal", op, q.shape().str());
  check(m <= std::numeric_limits<int32_t>::max() / n, "[{}] q {} is beyond 32-bit LAPACK", op, q.shape().str());
  return {.batch = q.numel() / (m * n), .rows = m, .cols = n};
}

int64_t scratch_size(const ExecContext& ctx, const StiefelDims& dims, StiefelMethod method) {
  int64_t size = 0;
  on_device(
      ctx, [&] { size = cpu::stiefel_scratch(dims, method); }, [&](auto) { size = cuda::stiefel_scratch(dims, method); });
  return size;
}

/// Whether the step takes this direction in bf16 as it is.
bool takes_bf16(const ExecContext& ctx, const StiefelDims& dims, StiefelMethod method, const Tensor& q, const bf16* direction,
                const Tensor& twin) {
  if (!twin.defined()) return false;
  bool takes = false;
  on_device(
      ctx, [] {}, [&](auto) { takes = cuda::takes_bf16_direction(dims, method, q.data<float>(), direction, twin.data<bf16>()); });
  return takes;
}

}  // namespace

DType direction_dtype(const ExecContext& ctx, const Tensor& q, StiefelMethod method, const Tensor& twin) {
  const StiefelDims dims = stiefel_dims("stiefel_step", q);
  check_twin("stiefel_step", "q", q, twin);
  return takes_bf16(ctx, dims, method, q, nullptr, twin) ? DType::bf16 : q.dtype();
}

void stiefel_step(const ExecContext& ctx, const Tensor& q, const Tensor& direction, double lr, StiefelMethod method, const Tensor& twin) {
  const StiefelDims dims = stiefel_dims("stiefel_step", q);
  check_twin("stiefel_step", "q", q, twin);
  check(direction.defined() && direction.shape() == q.shape() && (direction.dtype() == q.dtype() || direction.dtype() == DType::bf16),
        "[stiefel_step] q {} {} but direction {} {}", name_of(q.dtype()), q.shape().str(), name_of(direction.dtype()),
        direction.shape().str());
  if (direction.dtype() == DType::bf16 && takes_bf16(ctx, dims, method, q, direction.data<bf16>(), twin)) {
    const auto scratch = ctx.workspace->borrow<float>(scratch_size(ctx, dims, method));
    on_device(
        ctx, [] {},
        [&](auto) {
          cuda::stiefel_step(ctx.stream, dims, lr, q.data<float>(), direction.data<bf16>(), twin.data<bf16>(), scratch.data());
        });
    return;
  }
  Tensor wide = direction;
  if (direction.dtype() != q.dtype()) convert(direction, wide = ctx.empty(q.shape(), q.dtype(), "orthogonal step"));
  dispatch_float(q.dtype(), "stiefel_step", [&](auto tag) {
    using T = decltype(tag);
    const auto scratch = ctx.workspace->borrow<T>(scratch_size(ctx, dims, method));
    const T* const a = wide.data<T>();
    on_device(
        ctx, tag, [&](auto) { cpu::stiefel_step(dims, method, lr, q.data<T>(), a, scratch.data()); },
        [&](auto) { cuda::stiefel_step(ctx.stream, dims, method, lr, q.data<T>(), a, data_or_null<bf16>(twin), scratch.data()); });
  });
  if (twin.defined() && !ctx.device.is_cuda()) convert(q, twin);
}

void retract(const ExecContext& ctx, const Tensor& q, StiefelMethod method, const Tensor& twin) {
  const StiefelDims dims = stiefel_dims("retract", q);
  check_twin("retract", "q", q, twin);
  dispatch_float(q.dtype(), "retract", [&](auto tag) {
    using T = decltype(tag);
    const auto scratch = ctx.workspace->borrow<T>(scratch_size(ctx, dims, method));
    on_device(
        ctx, tag, [&](auto) { cpu::retract(dims, method, q.data<T>(), scratch.data()); },
        [&](auto) { cuda::retract(ctx.stream, dims, method, q.data<T>(), data_or_null<bf16>(twin), scratch.data()); });
  });
  if (twin.defined() && !ctx.device.is_cuda()) convert(q, twin);
}

void polar_project(const ExecContext& ctx, const Tensor& q) {
  const StiefelDims dims = stiefel_dims("polar_project", q);
  dispatch_float(q.dtype(), "polar_project", [&](auto tag) {
    using T = decltype(tag);
    const auto scratch = ctx.workspace->borrow<T>(scratch_size(ctx, dims, StiefelMethod::newton_schulz));
    on_device(
        ctx, tag, [&](auto) { cpu::polar_project(dims, q.data<T>(), scratch.data()); },
        [&](auto) { cuda::polar_project(ctx.stream, dims, q.data<T>(), scratch.data()); });
  });
  const double residual = orthogonality_residual(ctx, q);
  check(residual < 1e-4, "[polar_project] q {} is nearly rank-deficient: max|QᵀQ - I| stays at {:.1e}", q.shape().str(), residual);
}

double orthogonality_residual(const ExecContext& ctx, const Tensor& q) {
  const StiefelDims dims = stiefel_dims("orthogonality_residual", q);
  double worst = 0;
  dispatch_float(q.dtype(), "orthogonality_residual", [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag,
        [&](auto) {
          const auto scratch = ctx.workspace->borrow<double>(dims.rows * dims.cols + dims.cols * dims.cols);
          worst = cpu::orthogonality_residual(dims, q.data<T>(), scratch.data());
        },
        [&](auto) {
          const Tensor on_gpu = Tensor::zeros(*ctx.allocator, {1}, DType::f64);
          cuda::orthogonality_residual(ctx.stream, dims, q.data<T>(), on_gpu.data<double>());
          worst = item<double>(on_gpu);
        });
  });
  return worst;
}

void add_penalty_gradient(const ExecContext& ctx, const Tensor& q, double lambda, const Tensor& dq, const Tensor& penalty) {
  const StiefelDims dims = stiefel_dims("penalty_gradient", q);
  check(dq.defined() && dq.shape() == q.shape() && dq.dtype() == q.dtype(), "[penalty_gradient] q {} {} but dq {} {}", name_of(q.dtype()),
        q.shape().str(), name_of(dq.dtype()), dq.shape().str());
  check(penalty.defined() && penalty.shape() == Shape{1}, "[penalty_gradient] a penalty {} instead of one number", penalty.shape().str());
  double* const sum = penalty.data<double>();
  dispatch_float(q.dtype(), "penalty_gradient", [&](auto tag) {
    using T = decltype(tag);
    const auto scratch = ctx.workspace->borrow<T>(scratch_size(ctx, dims, StiefelMethod::newton_schulz));
    on_device(
        ctx, tag, [&](auto) { *sum += cpu::penalty_gradient(dims, q.data<T>(), lambda, dq.data<T>(), scratch.data()); },
        [&](auto) { cuda::penalty_gradient(ctx.stream, dims, q.data<T>(), lambda, dq.data<T>(), sum, scratch.data()); });
  });
}

double penalty_gradient(const ExecContext& ctx, const Tensor& q, double lambda, const Tensor& dq) {
  const Tensor penalty = Tensor::zeros(*ctx.allocator, {1}, DType::f64);
  add_penalty_gradient(ctx, q, lambda, dq, penalty);
  return item<double>(penalty);
}

}  // namespace ermoe
