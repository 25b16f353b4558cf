#include "ops/soft_targets.h"

#include "ops/kernels/soft_targets.h"

namespace ermoe {

Tensor soft_targets(const ExecContext& ctx, const Tensor& labels, int64_t classes, double smoothing, DType dtype) {
  check(labels.defined() && labels.dtype() == DType::i32 && labels.shape().rank() == 1, "[soft_targets] wants labels i32 (B) but got {} {}",
        name_of(labels.dtype()), labels.shape().str());
  check(classes >= 1, "[soft_targets] {} classes", classes);
  check(smoothing >= 0 && smoothing <= 1, "[soft_targets] smoothing {} is outside [0, 1]", smoothing);
  const SoftTargetsDims dims{.batch = labels.numel(), .classes = classes, .smoothing = smoothing};
  Tensor targets = ctx.empty({dims.batch, classes}, dtype);
  dispatch_compute(dtype, "soft_targets", [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag, [&](auto) { cpu::soft_targets(dims, labels.data<int32_t>(), targets.data<T>()); },
        [&](auto) { cuda::soft_targets(ctx.stream, dims, labels.data<int32_t>(), targets.data<T>()); });
  });
  return targets;
}

}  // namespace ermoe
