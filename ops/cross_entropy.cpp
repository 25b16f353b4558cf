#include "ops/cross_entropy.h"

#include "ops/checks.h"
#include "ops/kernels/cross_entropy.h"

namespace ermoe {
namespace {

/// Null where all classes weigh the same.
template <typename T>
const T* data_or_null(const Tensor& t) {
  return t.defined() ? t.data<T>() : nullptr;
}

struct CrossEntropy {
  static constexpr const char* name = "cross_entropy";
  CrossEntropyDims dims;
  Tensor logits;         // (B, Y)
  Tensor targets;        // (B, Y)
  Tensor class_weights;  // (Y) or undefined
  Tensor lse;            // (B): log-sum-exp of each row

  void backward(const ExecContext& ctx, const Tensor& dloss, GradWriter& out) const {
    const auto [dlogits, mode] = out.into(0);
    dispatch_compute(logits.dtype(), name, [&, &dlogits = dlogits, mode = mode](auto tag) {
      using T = decltype(tag);
      const T *x = logits.data<T>(), *t = targets.data<T>(), *w = data_or_null<T>(class_weights), *dl = dloss.data<T>();
      T* const dx = dlogits.template data<T>();
      on_device(
          ctx, tag, [&](auto) { cpu::cross_entropy_backward(dims, x, t, w, lse.data<T>(), dl, dx, mode); },
          [&](auto) { cuda::cross_entropy_backward(ctx.stream, dims, x, t, w, lse.data<T>(), dl, dx, mode); });
    });
  }
};

struct SigmoidCrossEntropy {
  static constexpr const char* name = "sigmoid_cross_entropy";
  CrossEntropyDims dims;
  Tensor logits;         // (B, Y)
  Tensor targets;        // (B, Y)
  Tensor class_weights;  // (Y) or undefined

  void backward(const ExecContext& ctx, const Tensor& dloss, GradWriter& out) const {
    const auto [dlogits, mode] = out.into(0);
    dispatch_compute(logits.dtype(), name, [&, &dlogits = dlogits, mode = mode](auto tag) {
      using T = decltype(tag);
      const T *x = logits.data<T>(), *t = targets.data<T>(), *w = data_or_null<T>(class_weights), *dl = dloss.data<T>();
      T* const dx = dlogits.template data<T>();
      on_device(
          ctx, tag, [&](auto) { cpu::sigmoid_cross_entropy_backward(dims, x, t, w, dl, dx, mode); },
          [&](auto) { cuda::sigmoid_cross_entropy_backward(ctx.stream, dims, x, t, w, dl, dx, mode); });
    });
  }
};

CrossEntropyDims dims_of(const char* op, const Variable& logits, const Tensor& targets, const Tensor& class_weights,
                         EntropyOffset offset = EntropyOffset::none) {
  const Variable t(targets), w(class_weights);
  check_floats(op, {&logits, &t, &w});
  const Shape& shape = logits.shape();
  check(shape.rank() == 2 && shape.numel() > 0, "[{}] wants logits (B, Y) with B, Y >= 1 but got {}", op, shape.str());
  check(targets.defined() && targets.shape() == shape, "[{}] logits {} but targets {}", op, shape.str(), targets.shape().str());
  check(!class_weights.defined() || class_weights.shape() == Shape{shape[1]}, "[{}] logits {} but class weights {}", op, shape.str(),
        class_weights.shape().str());
  return {.batch = shape[0], .classes = shape[1], .offset = offset};
}

Variable softmax_loss(const ExecContext& ctx, const CrossEntropyDims& dims, const Variable& logits, const Tensor& targets,
                      const Tensor& class_weights) {
  Tensor loss = ctx.empty({}, logits.dtype());
  const Tensor lse = ctx.empty({dims.batch}, logits.dtype());
  dispatch_compute(logits.dtype(), CrossEntropy::name, [&](auto tag) {
    using T = decltype(tag);
    const auto rows = ctx.workspace->borrow<T>(dims.batch);
    const T *x = logits.value.data<T>(), *t = targets.data<T>(), *w = data_or_null<T>(class_weights);
    on_device(
        ctx, tag, [&](auto) { cpu::cross_entropy_forward(dims, x, t, w, lse.data<T>(), rows.data(), loss.data<T>()); },
        [&](auto) { cuda::cross_entropy_forward(ctx.stream, dims, x, t, w, lse.data<T>(), rows.data(), loss.data<T>()); });
  });
  return record(ctx, std::move(loss), {&logits},
                CrossEntropy{.dims = dims, .logits = logits.value, .targets = targets, .class_weights = class_weights, .lse = lse});
}

}  // namespace

Variable cross_entropy(const ExecContext& ctx, const Variable& logits, const Tensor& targets, const Tensor& class_weights) {
  return softmax_loss(ctx, dims_of(CrossEntropy::name, logits, targets, class_weights), logits, targets, class_weights);
}

Variable kl_loss(const ExecContext& ctx, const Variable& logits, const Tensor& targets) {
  return softmax_loss(ctx, dims_of("kl_loss", logits, targets, {}, EntropyOffset::targets), logits, targets, {});
}

Variable sigmoid_cross_entropy(const ExecContext& ctx, const Variable& logits, const Tensor& targets, const Tensor& class_weights) {
  const CrossEntropyDims dims = dims_of(SigmoidCrossEntropy::name, logits, targets, class_weights);
  Tensor loss = ctx.empty({}, logits.dtype());
  dispatch_compute(logits.dtype(), SigmoidCrossEntropy::name, [&](auto tag) {
    using T = decltype(tag);
    const auto rows = ctx.workspace->borrow<T>(dims.batch);
    const T *x = logits.value.data<T>(), *t = targets.data<T>(), *w = data_or_null<T>(class_weights);
    on_device(
        ctx, tag, [&](auto) { cpu::sigmoid_cross_entropy_forward(dims, x, t, w, rows.data(), loss.data<T>()); },
        [&](auto) { cuda::sigmoid_cross_entropy_forward(ctx.stream, dims, x, t, w, rows.data(), loss.data<T>()); });
  });
  return record(ctx, std::move(loss), {&logits},
                SigmoidCrossEntropy{.dims = dims, .logits = logits.value, .targets = targets, .class_weights = class_weights});
}

}  // namespace ermoe
