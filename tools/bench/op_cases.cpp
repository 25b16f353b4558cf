// The table of ops that ermoe-bench times. N tokens of width D pass networks of width F; K of E experts take each.
#include "core/enum_names.h"
#include "ops/adamw.h"
#include "ops/attention.h"
#include "ops/combine.h"
#include "ops/combine_weights.h"
#include "ops/context_cosine.h"
#include "ops/dispatch.h"
#include "ops/gelu.h"
#include "ops/grouped_linear.h"
#include "ops/layer_norm.h"
#include "ops/linear.h"
#include "ops/materialize.h"
#include "ops/orthogonal_step.h"
#include "ops/select_experts.h"
#include "ops/softmax.h"
#include "tools/bench/op_bench.h"

namespace ermoe {
namespace {

constexpr int64_t B = 16, T = 65, D = 384, F = 4 * D, E = 8, K = 2, H = 6, R = D / 8, N = B * T;
double product(int64_t a, int64_t b, int64_t c) { return 2.0 * static_cast<double>(a * b * c); }
double bytes_of(int64_t elements) { return 4.0 * static_cast<double>(elements); }

Selection best_experts(const ExecContext& ctx, const Tensor& scores) {
  SelectArgs args;
  args.scores = scores;
  args.slots = K;
  return select_experts(ctx, args);
}

using Visit = std::function<void(const OpCase&)>;
using In = std::span<const Variable>;

class Cases {
 public:
  Cases(const ExecContext& ctx, const Visit& visit) : ctx_(ctx), visit_(visit) {}

  void all() {
    products();
    elementwise();
    routing();
    factors();
  }

 private:
  Tensor random(const Shape& shape) {
    const Tensor t = ctx_.empty(shape, DType::f32, "benchmark");
    fill_uniform(t, RngKey{++drawn_});
    return t;
  }

  void linear_case(int64_t in, int64_t out) {
    visit_({.name = "linear",
            .shapes = fmt::format("({}, {}) to {}", N, in, out),
            .work = product(N, in, out),
            .backward_work = 2 * product(N, in, out),
            .inputs = {random({N, in}), random({out, in}), random({out})},
            .run = [](const ExecContext& c, In in_) { return linear(c, in_[0], in_[1], in_[2]); }});
  }

  void products() {
    linear_case(D, 3 * D);
    linear_case(D, D);
    linear_case(D, F);
    linear_case(F, D);
    for (const int64_t tokens : {T, int64_t{197}}) {
      const double work = 2 * product(B * tokens, tokens, D);
      visit_({.name = "attention",
              .shapes = fmt::format("B {} T {} H {} Dh {}", B, tokens, H, D / H),
              .work = work,
              .backward_work = 2.5 * work,  // five products for two: the scores are made again
              .inputs = {random({B, tokens, 3 * D})},
              .run = [](const ExecContext& c, In in) { return attention(c, in[0], H); }});
    }
  }

  void memory_case(const char* name, const Shape& shape, int passes, int backward_passes, std::vector<Tensor> more,
                   std::function<Variable(const ExecContext&, In)> run) {
    std::vector<Tensor> inputs{random(shape)};
    inputs.insert(inputs.end(), more.begin(), more.end());
    visit_({.name = name,
            .shapes = shape.str(),
            .bound = Bound::memory,
            .work = passes * bytes_of(shape.numel()),
            .backward_work = backward_passes * bytes_of(shape.numel()),
            .inputs = std::move(inputs),
            .run = std::move(run)});
  }

  void elementwise() {
    memory_case("layer_norm", {N, D}, 2, 3, {random({D}), random({D})},
                [](const ExecContext& c, In in) { return layer_norm(c, in[0], in[1], in[2], 1e-6); });
    memory_case("gelu", {N, F}, 2, 3, {}, [](const ExecContext& c, In in) { return gelu(c, in[0]); });
    memory_case("softmax", {N, 1000}, 2, 3, {}, [](const ExecContext& c, In in) { return softmax(c, in[0]); });
    const Tensor g = random({F, F}), m = random({F, F}), v = random({F, F});
    for (float& x : v.span<float>()) x += 1;
    memory_case("adamw", {F, F}, 7, 0, {}, [=](const ExecContext& c, In in) {
      adamw_step(c, AdamDims{.lr = 1e-3}, in[0].value, g, m, v);
      return Variable();
    });
  }

  void routing() {
    const Tensor scores = random({N, E});
    const Selection chosen = best_experts(ctx_, scores);
    const RoutingPlan plan = make_plan(ctx_, chosen.ids, E);
    const double scoring = 2 * product(N, D, E * R);
    visit_({.name = "router_score",
            .shapes = fmt::format("N {} D {} E {} R {}", N, D, E, R),
            .work = scoring,
            .backward_work = 2 * scoring,
            .inputs = {random({N, D}), random({N, D}), random({E, R, D})},
            .run = [](const ExecContext& c, In in) { return context_cosine(c, in[0], in[1], in[2], {}, {}); }});
    memory_case("select", {N, E}, 1, 0, {}, [](const ExecContext& c, In in) {
      make_plan(c, best_experts(c, in[0].value).ids, E);
      return Variable();
    });
    memory_case("combine_weights", {N, E}, 1, 1, {},
                [chosen](const ExecContext& c, In in) { return combine_weights(c, in[0], chosen.ids, CombineRule::normalized, {}, {}); });
    memory_case("dispatch", {N, D}, 1 + K, 1 + K, {}, [plan](const ExecContext& c, In in) { return dispatch(c, in[0], plan); });
    memory_case("combine", {N * K, D}, 2, 3, {random({N, K})},
                [plan](const ExecContext& c, In in) { return combine(c, in[0], in[1], plan); });
    for (const auto& [in_width, out_width] : {std::pair{D, F}, std::pair{F, D}}) {
      const double work = product(N * K, in_width, out_width);
      visit_({.name = "grouped_linear",
              .shapes = fmt::format("({}, {}) to {}, {} experts", N * K, in_width, out_width, E),
              .work = work,
              .backward_work = 2 * work,
              .inputs = {random({N * K, in_width}), random({E, out_width, in_width}), random({E, out_width})},
              .run = [plan](const ExecContext& c, In in) { return grouped_linear(c, in[0], in[1], in[2], plan); }});
    }
  }

  void factors() {
    visit_({.name = "materialize",
            .shapes = fmt::format("{} x ({}, {}) of rank {}", E, F, D, D),
            .work = E * product(F, D, D),
            .backward_work = 2 * E * product(F, D, D),
            .inputs = {random({E, F, D}), random({E, D}), random({E, D, D})},
            .run = [](const ExecContext& c, In in) { return materialize(c, in[0], in[1], in[2]); }});
    for (const StiefelMethod method :
         {StiefelMethod::newton_schulz, StiefelMethod::gram_schmidt, StiefelMethod::cholesky_qr, StiefelMethod::cayley})
      stiefel_case(method);
  }

  /// Work: two products for the tangent step, two for a retraction.
  void stiefel_case(StiefelMethod method) {
    const Tensor q = Tensor::zeros(*ctx_.allocator, {E, F, D}, DType::f32, "benchmark"), direction = random({E, F, D});
    for (int64_t e = 0; e < E; ++e)
      for (int64_t i = 0; i < D; ++i) q.data<float>()[(e * F + i) * D + i] = 1;  // columns of the identity: orthonormal
    visit_({.name = "stiefel_step",
            .shapes = fmt::format("{} x ({}, {}), {}", E, F, D, enum_name(method)),
            .work = 4 * E * product(F, D, D),
            .inputs = {q},
            .run = [=](const ExecContext& c, In in) {
              stiefel_step(c, in[0].value, direction, 1e-3, method);
              return Variable();
            }});
  }

  const ExecContext& ctx_;
  const Visit& visit_;
  uint64_t drawn_ = 0;
};

}  // namespace

void for_each_op(const ExecContext& ctx, const std::function<void(const OpCase&)>& visit) { Cases(ctx, visit).all(); }

}  // namespace ermoe
