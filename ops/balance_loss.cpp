#include "ops/balance_loss.h"

#include "ops/checks.h"
#include "ops/kernels/balance_loss.h"
#include "ops/optional_tensor.h"

namespace ermoe {
namespace {

struct SwitchBalance {
  static constexpr const char* name = "switch_balance";
  BalanceDims dims;
  Tensor shares;   // (E)
  Tensor weights;  // (N) or undefined

  void backward(const ExecContext& ctx, const Tensor& dloss, GradWriter& out) const {
    const auto [dp, mode] = out.into(0);
    dispatch_float(shares.dtype(), name, [&, &dp = dp, mode = mode](auto tag) {
      using T = decltype(tag);
      const T* const w = data_or_null<T>(weights);
      T* const dst = dp.template data<T>();
      on_device(
          ctx, tag, [&](auto) { cpu::switch_balance_backward(dims, shares.data<T>(), w, dloss.data<T>(), dst, mode); },
          [&](auto) { cuda::switch_balance_backward(ctx.stream, dims, shares.data<T>(), w, dloss.data<T>(), dst, mode); });
    });
  }
};

struct ZLoss {
  static constexpr const char* name = "z_loss";
  BalanceDims dims;
  Tensor logits;   // (N, E)
  Tensor lse;      // (N)
  Tensor weights;  // (N) or undefined

  void backward(const ExecContext& ctx, const Tensor& dloss, GradWriter& out) const {
    const auto [dlogits, mode] = out.into(0);
    dispatch_float(logits.dtype(), name, [&, &dlogits = dlogits, mode = mode](auto tag) {
      using T = decltype(tag);
      const T *x = logits.data<T>(), *l = lse.data<T>(), *dl = dloss.data<T>(), *w = data_or_null<T>(weights);
      T* const dst = dlogits.template data<T>();
      on_device(
          ctx, tag, [&](auto) { cpu::z_loss_backward(dims, x, w, l, dl, dst, mode); },
          [&](auto) { cuda::z_loss_backward(ctx.stream, dims, x, w, l, dl, dst, mode); });
    });
  }
};

struct ImportanceLoss {
  static constexpr const char* name = "importance_loss";
  BalanceDims dims;
  Tensor loads;    // (G, E) f64
  Tensor weights;  // (N) or undefined

  void backward(const ExecContext& ctx, const Tensor& dloss, GradWriter& out) const {
    const auto [dp, mode] = out.into(0);
    dispatch_float(dloss.dtype(), name, [&, &dp = dp, mode = mode](auto tag) {
      using T = decltype(tag);
      const T* const w = data_or_null<T>(weights);
      T* const dst = dp.template data<T>();
      on_device(
          ctx, tag, [&](auto) { cpu::importance_loss_backward(dims, loads.data<double>(), w, dloss.data<T>(), dst, mode); },
          [&](auto) { cuda::importance_loss_backward(ctx.stream, dims, loads.data<double>(), w, dloss.data<T>(), dst, mode); });
    });
  }
};

struct LoadLoss {
  static constexpr const char* name = "load_loss";
  BalanceDims dims;
  Tensor clean;       // (N, E)
  Tensor thresholds;  // (N) the K-th largest noisy logit
  Tensor loads;       // (G, E) f64
  Tensor weights;     // (N) or undefined

  void backward(const ExecContext& ctx, const Tensor& dloss, GradWriter& out) const {
    const auto [dclean, mode] = out.into(0);
    dispatch_float(clean.dtype(), name, [&, &dclean = dclean, mode = mode](auto tag) {
      using T = decltype(tag);
      const T *c = clean.data<T>(), *t = thresholds.data<T>(), *dl = dloss.data<T>(), *w = data_or_null<T>(weights);
      const double* const l = loads.data<double>();
      T* const dst = dclean.template data<T>();
      on_device(
          ctx, tag, [&](auto) { cpu::load_loss_backward(dims, c, w, t, l, dl, dst, mode); },
          [&](auto) { cuda::load_loss_backward(ctx.stream, dims, c, w, t, l, dl, dst, mode); });
    });
  }
};

BalanceDims dims_of(const char* op, const Variable& x, const Tensor& weights, int64_t groups = 1) {
  check_floats(op, {&x});
  const Shape& shape = x.shape();
  check(shape.rank() == 2 && shape.numel() > 0, "[{}] wants (N, E) with N, E >= 1 but got {}", op, shape.str());
  check(groups >= 1 && shape[0] % groups == 0, "[{}] {} rows in {} groups", op, shape[0], groups);
  check(!weights.defined() || (weights.shape() == Shape{shape[0]} && weights.dtype() == x.dtype()), "[{}] {} {} but weights {} {}", op,
        name_of(x.dtype()), shape.str(), name_of(weights.dtype()), weights.shape().str());
  return {.rows = shape[0], .experts = shape[1], .groups = groups};
}

}  // namespace

Variable switch_balance(const ExecContext& ctx, const Variable& probabilities, const Tensor& ids, const Tensor& weights) {
  BalanceDims dims = dims_of(SwitchBalance::name, probabilities, weights);
  check(ids.defined() && ids.dtype() == DType::i32 && ids.shape().rank() == 2 && ids.shape()[0] == dims.rows,
        "[switch_balance] probabilities {} but ids {} {}", probabilities.shape().str(), name_of(ids.dtype()), ids.shape().str());
  dims.slots = ids.shape()[1];
  Tensor loss = ctx.empty({}, probabilities.dtype());
  const Tensor shares = ctx.empty({dims.experts}, probabilities.dtype());
  dispatch_float(probabilities.dtype(), SwitchBalance::name, [&](auto tag) {
    using T = decltype(tag);
    const T *p = probabilities.value.data<T>(), *w = data_or_null<T>(weights);
    const int32_t* const id = ids.data<int32_t>();
    on_device(
        ctx, tag, [&](auto) { cpu::switch_balance_forward(dims, p, id, w, shares.data<T>(), loss.data<T>()); },
        [&](auto) {
          const auto scratch = ctx.workspace->borrow<double>(cuda::balance_scratch(dims));
          cuda::switch_balance_forward(ctx.stream, dims, p, id, w, shares.data<T>(), loss.data<T>(), scratch.data());
        });
  });
  return record(ctx, std::move(loss), {&probabilities}, SwitchBalance{.dims = dims, .shares = shares, .weights = weights});
}

Variable z_loss(const ExecContext& ctx, const Variable& logits, const Tensor& weights) {
  const BalanceDims dims = dims_of(ZLoss::name, logits, weights);
  Tensor loss = ctx.empty({}, logits.dtype());
  const Tensor lse = ctx.empty({dims.rows}, logits.dtype());
  dispatch_float(logits.dtype(), ZLoss::name, [&](auto tag) {
    using T = decltype(tag);
    const T *x = logits.value.data<T>(), *w = data_or_null<T>(weights);
    on_device(
        ctx, tag, [&](auto) { cpu::z_loss_forward(dims, x, w, lse.data<T>(), loss.data<T>()); },
        [&](auto) {
          const auto scratch = ctx.workspace->borrow<double>(cuda::balance_scratch(dims));
          cuda::z_loss_forward(ctx.stream, dims, x, w, lse.data<T>(), loss.data<T>(), scratch.data());
        });
  });
  return record(ctx, std::move(loss), {&logits}, ZLoss{.dims = dims, .logits = logits.value, .lse = lse, .weights = weights});
}

Variable importance_loss(const ExecContext& ctx, const Variable& probabilities, int64_t groups, const Tensor& weights) {
  const BalanceDims dims = dims_of(ImportanceLoss::name, probabilities, weights, groups);
  Tensor loss = ctx.empty({}, probabilities.dtype());
  const Tensor loads = ctx.empty({groups, dims.experts}, DType::f64);
  dispatch_float(probabilities.dtype(), ImportanceLoss::name, [&](auto tag) {
    using T = decltype(tag);
    const T *p = probabilities.value.data<T>(), *w = data_or_null<T>(weights);
    on_device(
        ctx, tag, [&](auto) { cpu::importance_loss_forward(dims, p, w, loads.data<double>(), loss.data<T>()); },
        [&](auto) {
          const auto scratch = ctx.workspace->borrow<double>(cuda::balance_scratch(dims));
          cuda::importance_loss_forward(ctx.stream, dims, p, w, loads.data<double>(), loss.data<T>(), scratch.data());
        });
  });
  return record(ctx, std::move(loss), {&probabilities}, ImportanceLoss{.dims = dims, .loads = loads, .weights = weights});
}

Variable load_loss(const ExecContext& ctx, const Variable& clean, const Variable& noisy, int64_t k, double sigma, int64_t groups,
                   const Tensor& weights) {
  BalanceDims dims = dims_of(LoadLoss::name, clean, weights, groups);
  check_floats(LoadLoss::name, {&clean, &noisy});
  check(noisy.defined() && noisy.shape() == clean.shape(), "[load_loss] clean logits {} but noisy logits {}", clean.shape().str(),
        noisy.shape().str());
  check(k >= 1 && k <= dims.experts, "[load_loss] the {} best of {} experts", k, dims.experts);
  check(sigma > 0, "[load_loss] sigma {} is not positive", sigma);
  dims.slots = k;
  dims.sigma = sigma;
  Tensor loss = ctx.empty({}, clean.dtype());
  const Tensor thresholds = ctx.empty({dims.rows}, clean.dtype()), loads = ctx.empty({groups, dims.experts}, DType::f64);
  dispatch_float(clean.dtype(), LoadLoss::name, [&](auto tag) {
    using T = decltype(tag);
    const T *c = clean.value.data<T>(), *x = noisy.value.data<T>(), *w = data_or_null<T>(weights);
    on_device(
        ctx, tag, [&](auto) { cpu::load_loss_forward(dims, c, x, w, thresholds.data<T>(), loads.data<double>(), loss.data<T>()); },
        [&](auto) {
          const auto scratch = ctx.workspace->borrow<double>(cuda::balance_scratch(dims));
          cuda::load_loss_forward(ctx.stream, dims, c, x, w, thresholds.data<T>(), loads.data<double>(), loss.data<T>(), scratch.data());
        });
  });
  return record(ctx, std::move(loss), {&clean},
                LoadLoss{.dims = dims, .clean = clean.value, .thresholds = thresholds, .loads = loads, .weights = weights});
}

}  // namespace ermoe
