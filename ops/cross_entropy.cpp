#include "ops/cross_entropy.h"

#include "ops/checks.h"
#include "ops/kernels/cross_entropy.h"
#include "ops/optional_tensor.h"

namespace ermoe {
namespace {

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
      const T* const x = logits.data<T>();
      const Master<T>*t = targets.data<Master<T>>(), *w = data_or_null<Master<T>>(class_weights), *dl = dloss.data<Master<T>>();
      T* const dx = dlogits.template data<T>();
      on_device(
          ctx, tag, [&](auto) { cpu::cross_entropy_backward(dims, x, t, w, lse.data<Master<T>>(), dl, dx, mode); },
          [&](auto) { cuda::cross_entropy_backward(ctx.stream, dims, x, t, w, lse.data<Master<T>>(), dl, dx, mode); });
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
      const T* const x = logits.data<T>();
      const Master<T>*t = targets.data<Master<T>>(), *w = data_or_null<Master<T>>(class_weights), *dl = dloss.data<Master<T>>();
      T* const dx = dlogits.template data<T>();
      on_device(
          ctx, tag, [&](auto) { cpu::sigmoid_cross_entropy_backward(dims, x, t, w, dl, dx, mode); },
          [&](auto) { cuda::sigmoid_cross_entropy_backward(ctx.stream, dims, x, t, w, dl, dx, mode); });
    });
  }
};

CrossEntropyDims dims_of(const char* op, const Variable& logits, const Tensor& targets, const Tensor& class_weights,
                         EntropyOffset offset = EntropyOffset::none) {
  check_floats(op, {&logits});
  for (const Tensor& t : {targets, class_weights})
    check(!t.defined() || t.dtype() == master_of(logits.dtype()), "[{}] logits {} want {} beside them, not {}", op, name_of(logits.dtype()),
          name_of(master_of(logits.dtype())), name_of(t.dtype()));
  const Shape& shape = logits.shape();
  check(shape.rank() == 2 && shape.numel() > 0, "[{}] wants logits (B, Y) with B, Y >= 1 but got {}", op, shape.str());
  check(targets.defined() && targets.shape() == shape, "[{}] logits {} but targets {}", op, shape.str(), targets.shape().str());
  check(!class_weights.defined() || class_weights.shape() == Shape{shape[1]}, "[{}] logits {} but class weights {}", op, shape.str(),
        class_weights.shape().str());
  return {.batch = shape[0], .classes = shape[1], .offset = offset};
}

Variable softmax_loss(const ExecContext& ctx, const CrossEntropyDims& dims, const Variable& logits, const Tensor& targets,
                      const Tensor& class_weights) {
  Tensor loss = ctx.empty({}, master_of(logits.dtype()));
  const Tensor lse = ctx.empty({dims.batch}, master_of(logits.dtype()));
  dispatch_compute(logits.dtype(), CrossEntropy::name, [&](auto tag) {
    using T = decltype(tag);
    const auto rows = ctx.workspace->borrow<Master<T>>(dims.batch);
    const T* const x = logits.value.data<T>();
    const Master<T>*t = targets.data<Master<T>>(), *w = data_or_null<Master<T>>(class_weights);
    on_device(
        ctx, tag, [&](auto) { cpu::cross_entropy_forward(dims, x, t, w, lse.data<Master<T>>(), rows.data(), loss.data<Master<T>>()); },
        [&](auto) { cuda::cross_entropy_forward(ctx.stream, dims, x, t, w, lse.data<Master<T>>(), rows.data(), loss.data<Master<T>>()); });
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
  Tensor loss = ctx.empty({}, master_of(logits.dtype()));
  dispatch_compute(logits.dtype(), SigmoidCrossEntropy::name, [&](auto tag) {
    using T = decltype(tag);
    const auto rows = ctx.workspace->borrow<Master<T>>(dims.batch);
    const T* const x = logits.value.data<T>();
    const Master<T>*t = targets.data<Master<T>>(), *w = data_or_null<Master<T>>(class_weights);
    on_device(
        ctx, tag, [&](auto) { cpu::sigmoid_cross_entropy_forward(dims, x, t, w, rows.data(), loss.data<Master<T>>()); },
        [&](auto) { cuda::sigmoid_cross_entropy_forward(ctx.stream, dims, x, t, w, rows.data(), loss.data<Master<T>>()); });
  });
  return record(ctx, std::move(loss), {&logits},
                SigmoidCrossEntropy{.dims = dims, .logits = logits.value, .targets = targets, .class_weights = class_weights});
}

}  // namespace ermoe
