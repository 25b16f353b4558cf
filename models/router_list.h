// The routers there are, one line each. What follows from a line: its name in `moe.router`, RouterKind::NAME, and a call of
// make_NAME_router, which models/router_*.cpp defines. docs/adding-a-router.md has the rest.
#pragma once

#define ERMOE_ROUTERS(ROUTER) \
  ROUTER(ermoe)               \
  ROUTER(linear)              \
  ROUTER(vmoe)                \
  ROUTER(switch_lbl)          \
  ROUTER(bias_balanced)       \
  ROUTER(learned_cosine)      \
  ROUTER(emoe)                \
  ROUTER(prototype)           \
  ROUTER(soft)                \
  ROUTER(expert_choice)

namespace ermoe {

#define ERMOE_ROUTER_KIND(name) name,
enum class RouterKind { ERMOE_ROUTERS(ERMOE_ROUTER_KIND) };
#undef ERMOE_ROUTER_KIND

}  // namespace ermoe
