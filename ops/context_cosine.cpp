#include "ops/context_cosine.h"

#include "ops/basis_projection.h"
#include "ops/cosine.h"

namespace ermoe {

Variable context_cosine(const ExecContext& ctx, const Variable& x, const Variable& c, const Variable& basis, const Tensor& mean_x,
                        const Tensor& mean_c) {
  check(x.shape() == c.shape(), "[context_cosine] x {} but context {}", x.shape().str(), c.shape().str());
  return cosine(ctx, basis_projection(ctx, x, basis, mean_x), basis_projection(ctx, c, basis, mean_c));
}

}  // namespace ermoe
