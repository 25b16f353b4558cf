#include "models/router.h"

#include "ops/token_weights.h"

namespace ermoe {

Tensor weights_of_tokens(const ExecContext& ctx, const RouterInput& in, int64_t groups) {
  if (in.closed == ClosedTokens::count || !in.countable.defined()) return {};
  return token_weights(ctx, in.countable, groups, master_of(in.x.dtype()));
}

std::unique_ptr<Router> make_router(const MoeConfig& moe, const ExpertDims& dims, ExpertBank* experts) {
  switch (moe.router) {
#define ERMOE_MAKE_ROUTER(name) \
  case RouterKind::name: return make_##name##_router(moe, dims, experts);
    ERMOE_ROUTERS(ERMOE_MAKE_ROUTER)
#undef ERMOE_MAKE_ROUTER
  }
  fail("[router] no router has the number {}", static_cast<int>(moe.router));
}

}  // namespace ermoe
