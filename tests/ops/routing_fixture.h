// Routings that every expert op must survive: ragged, missing slots, an expert without a token, all tokens to one
// expert, one slot a token, every expert taken.
#pragma once

#include "core/context.h"
#include "core/rng.h"
#include "ops/routing_plan.h"

#include <functional>
#include <string>
#include <vector>

namespace ermoe::testing {

struct Routing {
  std::string name;
  int64_t tokens, slots, experts;
  std::function<int32_t(int64_t n, int64_t k)> expert;  // of slot k of token n; -1: missing
};

inline std::vector<Routing> routings() {
  const auto random = [](int64_t n, int64_t salt) {
    return static_cast<int64_t>(philox(RngKey{99}, static_cast<uint64_t>(n * 7 + salt)).x[0] >> 8);
  };
  return {
      {"ragged", 23, 2, 5, [=](int64_t n, int64_t k) { return static_cast<int32_t>((random(n, 0) % 5 + k * (1 + random(n, 1) % 4)) % 5); }},
      {"missing", 17, 3, 6,
       [=](int64_t n, int64_t k) { return random(n, k) % 3 == 0 || n == 4 ? -1 : static_cast<int32_t>((n * n + 2 * k) % 6); }},
      {"idle_expert", 11, 2, 4, [](int64_t n, int64_t k) { return static_cast<int32_t>(k == 0 ? n % 2 : 3); }},
      {"one_expert", 13, 1, 3, [](int64_t, int64_t) { return 1; }},
      {"one_slot", 19, 1, 4, [](int64_t n, int64_t) { return static_cast<int32_t>(n * 3 % 4); }},
      {"every_expert", 7, 3, 3, [](int64_t n, int64_t k) { return static_cast<int32_t>((n + k) % 3); }},
      {"nobody", 5, 2, 3, [](int64_t, int64_t) { return -1; }},
      {"no_token", 0, 2, 3, [](int64_t, int64_t) { return -1; }},
  };
}

inline Tensor ids_of(const ExecContext& ctx, const Routing& r) {
  std::vector<int32_t> ids;
  for (int64_t n = 0; n < r.tokens; ++n)
    for (int64_t k = 0; k < r.slots; ++k) ids.push_back(r.expert(n, k));
  return Tensor::from<int32_t>(*ctx.allocator, {r.tokens, r.slots}, ids);
}

inline RoutingPlan plan_of(const ExecContext& ctx, const Routing& r) { return make_plan(ctx, ids_of(ctx, r), r.experts); }

/// With no more rows than are filled.
inline RoutingPlan tight_plan_of(const ExecContext& ctx, const Routing& r) {
  int64_t filled = 0;
  for (int64_t n = 0; n < r.tokens; ++n)
    for (int64_t k = 0; k < r.slots; ++k) filled += r.expert(n, k) >= 0;
  return make_plan(ctx, ids_of(ctx, r), r.experts, filled);
}

/// Few of many slots filled, as where experts choose their tokens.
inline Routing sparse_routing() {
  return {"sparse", 29, 6, 6, [](int64_t n, int64_t k) { return static_cast<int32_t>((n * 7 + k * 5) % 4 == 0 ? (n + k) % 6 : -1); }};
}

}  // namespace ermoe::testing
