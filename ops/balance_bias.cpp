#include "ops/balance_bias.h"

#include "ops/kernels/balance_bias.h"

namespace ermoe {

void add_counts(const ExecContext& ctx, const Tensor& counts, const Tensor& loads) {
  check(counts.defined() && loads.defined() && counts.dtype() == DType::i32 && counts.shape() == loads.shape(),
        "[add_counts] counts {} {} and loads {}", name_of(counts.dtype()), counts.shape().str(), loads.shape().str());
  dispatch_float(loads.dtype(), "add_counts", [&](auto tag) {
    using T = decltype(tag);
    const auto* from = counts.data<int32_t>();
    on_device(
        ctx, tag, [&](auto) { cpu::add_counts(loads.numel(), from, loads.data<T>()); },
        [&](auto) { cuda::add_counts(ctx.stream, loads.numel(), from, loads.data<T>()); });
  });
}

void move_biases(const ExecContext& ctx, const Tensor& loads, double rate, const Tensor& bias) {
  check(loads.defined() && bias.defined() && loads.shape() == bias.shape() && loads.dtype() == bias.dtype(),
        "[move_biases] loads {} {} and bias {} {}", name_of(loads.dtype()), loads.shape().str(), name_of(bias.dtype()), bias.shape().str());
  dispatch_float(bias.dtype(), "move_biases", [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag, [&](auto) { cpu::move_biases(bias.numel(), loads.data<T>(), rate, bias.data<T>()); },
        [&](auto) { cuda::move_biases(ctx.stream, bias.numel(), loads.data<T>(), rate, bias.data<T>()); });
  });
}

}  // namespace ermoe
