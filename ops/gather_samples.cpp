#include "ops/gather_samples.h"

#include "ops/kernels/gather_samples.h"

namespace ermoe {

Tensor gather_samples(const ExecContext& ctx, const Tensor& samples, const Tensor& indices) {
  check(
      samples.defined() && indices.defined() && samples.shape().rank() >= 1 && indices.shape().rank() == 1 && indices.dtype() == DType::i32,
      "[gather_samples] wants samples (n, …) and indices i32 (B) but got {} {} and {} {}", name_of(samples.dtype()), samples.shape().str(),
      name_of(indices.dtype()), indices.shape().str());
  const int64_t n = samples.shape()[0], batch = indices.shape()[0];
  Tensor picked = ctx.empty(samples.shape().with(0, batch), samples.dtype(), "batch");
  const GatherSamplesDims dims{.samples = n, .batch = batch, .bytes = batch == 0 ? 0 : static_cast<int64_t>(picked.bytes()) / batch};
  const auto* from = reinterpret_cast<const uint8_t*>(samples.raw());
  auto* to = reinterpret_cast<uint8_t*>(picked.raw());
  on_device(
      ctx, [&] { cpu::gather_samples(dims, from, indices.data<int32_t>(), to); },
      [&](auto) { cuda::gather_samples(ctx.stream, dims, from, indices.data<int32_t>(), to); });
  return picked;
}

}  // namespace ermoe
