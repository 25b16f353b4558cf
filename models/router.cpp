#include "models/router.h"

namespace ermoe {

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
