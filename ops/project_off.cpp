#include "ops/project_off.h"

#include "ops/kernels/project_off.h"

namespace ermoe {

void project_off_basis(const ExecContext& ctx, const Tensor& basis, const Tensor& rest, BasisPart part) {
  check(rest.shape().rank() == 3 && basis.shape().rank() == 2, "[project_off] basis {} wants (D, E*R), rest {} wants (E, D, c)",
        basis.shape().str(), rest.shape().str());
  const int64_t E = rest.shape()[0], all = part.of_all(E);
  check(all > 0 && basis.shape()[0] == rest.shape()[1] && basis.shape()[1] % all == 0 && part.first + E <= all,
        "[project_off] basis {} does not fit rest {}, experts {} on of {}", basis.shape().str(), rest.shape().str(), part.first, all);
  const ProjectOffDims dims{
      .E = E, .D = rest.shape()[1], .R = basis.shape()[1] / all, .c = rest.shape()[2], .first = part.first, .all = all};
  dispatch_float(rest.dtype(), "project_off", [&](auto tag) {
    using T = decltype(tag);
    const auto products = ctx.workspace->borrow<T>(dims.products());
    on_device(
        ctx, tag, [&](auto) { cpu::project_off_basis(dims, basis.data<T>(), rest.data<T>(), products.data()); },
        [&](auto) { cuda::project_off_basis(ctx.stream, dims, basis.data<T>(), rest.data<T>(), products.data()); });
  });
}

}  // namespace ermoe
