#include "ops/context_cosine.h"

#include "ops/basis_projection.h"
#include "ops/cosine.h"

namespace ermoe {

Variable context_cosine(const ExecContext& ctx, const Variable& x, const Variable& c, const Variable& basis, const Tensor& mean_x,
                        const Tensor& mean_c) {
  check(x.shape() == c.shape(), "[context_cosine] x {} but context {}", x.shape().str(), c.shape().str());
  const Projection own = basis_projection(ctx, x, basis, mean_x), context = basis_projection(ctx, c, basis, mean_c);
  return cosine(ctx, own.z, context.z, own.shift, context.shift);
}

}  // namespace ermoe
