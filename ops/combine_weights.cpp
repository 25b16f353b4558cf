#include "ops/combine_weights.h"

#include "ops/checks.h"
#include "ops/kernels/combine_weights.h"
#include "ops/optional_tensor.h"

namespace ermoe {
namespace {

struct CombineWeights {
  static constexpr const char* name = "combine_weights";
  CombineWeightsDims dims;
  Tensor scores;       // (N, E)
  Tensor ids;          // (N, K) i32
  Tensor threshold;    // (1) or undefined
  Tensor temperature;  // (1) or undefined
  Tensor w;            // (N, K), the output

  template <typename T>
  CombineWeightsInputs<T> inputs() const {
    return {.scores = scores.data<T>(),
            .ids = ids.data<int32_t>(),
            .threshold = data_or_null<T>(threshold),
            .temperature = data_or_null<T>(temperature)};
  }

  void backward(const ExecContext& ctx, const Tensor& dw, GradWriter& out) const {
    dispatch_float(scores.dtype(), name, [&](auto tag) {
      using T = decltype(tag);
      const auto in = inputs<T>();
      if (out.wants(0)) {
        const GradSlot ds = out.into(0);
        on_device(
            ctx, tag, [&](auto) { cpu::combine_weights_backward_scores(dims, in, w.data<T>(), dw.data<T>(), ds.dst.data<T>(), ds.mode); },
            [&](auto) {
              cuda::combine_weights_backward_scores(ctx.stream, dims, in, w.data<T>(), dw.data<T>(), ds.dst.data<T>(), ds.mode);
            });
      }
      if (out.wants(1) && dims.rule == CombineRule::softmax) {
        const GradSlot dt = out.into(1);
        on_device(
            ctx, tag,
            [&](auto) { cpu::combine_weights_backward_temperature(dims, in, w.data<T>(), dw.data<T>(), dt.dst.data<T>(), dt.mode); },
            [&](auto) {
              const auto scratch = ctx.workspace->borrow<double>(cuda::combine_weights_scratch(dims));
              cuda::combine_weights_backward_temperature(ctx.stream, dims, in, w.data<T>(), dw.data<T>(), dt.dst.data<T>(), dt.mode,
                                                         scratch.data());
            });
      }
    });
  }
};

}  // namespace

Variable combine_weights(const ExecContext& ctx, const Variable& scores, const Tensor& ids, CombineRule rule, const Tensor& threshold,
                         const Variable& temperature) {
  check_floats(CombineWeights::name, {&scores, &temperature});
  check(scores.shape().rank() == 2 && ids.defined() && ids.dtype() == DType::i32 && ids.shape().rank() == 2 &&
            ids.shape()[0] == scores.shape()[0],
        "[combine_weights] scores {} and ids {} {}", scores.shape().str(), name_of(ids.dtype()), ids.shape().str());
  check(!threshold.defined() || (threshold.numel() == 1 && threshold.dtype() == scores.dtype()),
        "[combine_weights] threshold {} {} beside scores {}", name_of(threshold.dtype()), threshold.shape().str(), name_of(scores.dtype()));
  check(rule != CombineRule::softmax || (temperature.defined() && temperature.value.numel() == 1),
        "[combine_weights] softmax wants a temperature (1) but got {}", temperature.shape().str());
  CombineWeights op{.dims = {scores.shape()[0], scores.shape()[1], ids.shape()[1], rule},
                    .scores = scores.value,
                    .ids = ids,
                    .threshold = threshold,
                    .temperature = temperature.value,
                    .w = ctx.empty(ids.shape(), scores.dtype())};
  dispatch_float(scores.dtype(), op.name, [&](auto tag) {
    using T = decltype(tag);
    const auto in = op.inputs<T>();
    on_device(
        ctx, tag, [&](auto) { cpu::combine_weights_forward(op.dims, in, op.w.data<T>()); },
        [&](auto) { cuda::combine_weights_forward(ctx.stream, op.dims, in, op.w.data<T>()); });
  });
  Tensor w = op.w;
  return record(ctx, std::move(w), {&scores, &temperature}, std::move(op));
}

}  // namespace ermoe
