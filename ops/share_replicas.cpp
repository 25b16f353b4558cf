#include "ops/share_replicas.h"

#include "core/error.h"
#include "ops/kernels/share_replicas.h"

namespace ermoe {

Tensor share_with_replicas(const ExecContext& ctx, const Tensor& ids, const Tensor& replica_of, int64_t first, int64_t tokens_an_image) {
  check(ids.dtype() == DType::i32 && ids.shape().rank() == 2 && tokens_an_image > 0 && ids.shape()[0] % tokens_an_image == 0,
        "[share_replicas] ids {} {} for images of {} tokens", name_of(ids.dtype()), ids.shape().str(), tokens_an_image);
  check(replica_of.shape().rank() == 1, "[share_replicas] replica_of {}", replica_of.shape().str());
  const ReplicaDims dims{.tokens = ids.shape()[0],
                         .slots = ids.shape()[1],
                         .replicas = replica_of.numel(),
                         .first = first,
                         .tokens_an_image = tokens_an_image};
  Tensor shared = ctx.empty(ids.shape(), DType::i32, "plan");
  dispatch_float(replica_of.dtype(), "share_replicas", [&](auto tag) {
    using T = decltype(tag);
    const int32_t* const from = ids.data<int32_t>();
    const T* const of = replica_of.data<T>();
    int32_t* const to = shared.data<int32_t>();
    on_device(
        ctx, tag, [&](auto) { cpu::share_replicas(dims, from, of, to); },
        [&](auto) { cuda::share_replicas(ctx.stream, dims, from, of, to); });
  });
  return shared;
}

}  // namespace ermoe
