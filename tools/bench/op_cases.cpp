// The table of ops that ermoe-bench times. N tokens of width D pass networks of width F; K of E experts take each.
#include "core/enum_names.h"
#include "core/flat.h"
#include "models/config_rules.h"
#include "models/experts.h"
#include "models/vit.h"
#include "ops/adamw.h"
#include "ops/attention.h"
#include "ops/combine.h"
#include "ops/combine_weights.h"
#include "ops/context_cosine.h"
#include "ops/contrastive_loss.h"
#include "ops/cross_entropy.h"
#include "ops/dispatch.h"
#include "ops/embedding.h"
#include "ops/gelu.h"
#include "ops/grouped_linear.h"
#include "ops/grouped_mlp.h"
#include "ops/layer_norm.h"
#include "ops/linear.h"
#include "ops/materialize.h"
#include "ops/mlp.h"
#include "ops/orthogonal_step.h"
#include "ops/patch_embed.h"
#include "ops/project_off.h"
#include "ops/select_experts.h"
#include "ops/softmax.h"
#include "tools/bench/op_bench.h"

#include <algorithm>

namespace ermoe {
namespace {

double product(int64_t a, int64_t b, int64_t c) { return 2.0 * static_cast<double>(a * b * c); }

using Visit = std::function<void(const OpCase&)>;
using In = std::span<const Variable>;
using Run = std::function<Variable(const ExecContext&, In)>;

class Cases {
 public:
  /// At the shapes of a tower's blocks over so many tokens.
  Cases(const Engine& engine, const OpOptions& options, const VitConfig& model, int64_t tokens, const Visit& visit)
      : engine_(engine),
        ctx_(engine.ctx),
        model_(model),
        visit_(visit),
        compute_(options.dtype),
        only_(options.only),
        B(options.batch),
        T(tokens),
        D(model.width),
        F(expert_hidden(model)),
        E(model.moe.experts),
        K(model.moe.top_k),
        H(model.heads),
        R(basis_rank(model)),
        N(B * T) {}

  void all() {
    for (const auto& [in, out] : {std::pair{D, 3 * D}, {D, D}, {D, F}, {F, D}}) linear_case(in, out);
    mlp_case();
    attention_case(T);
    if (!engine_.gpu && T != 197) attention_case(197);
    patch_embed_case();
    elementwise();
    router_score_case();
    selection();
    experts();
    factors();
    optimizer();
  }

  /// What a dense text tower adds, and the loss over pairs.
  void text(const DualConfig& towers) {
    for (const auto& [in, out] : {std::pair{D, 3 * D}, {D, D}, {D, F}, {F, D}}) linear_case(in, out);
    mlp_case();
    attention_case(T, AttentionMask::causal);
    embedding_case(towers.text.vocabulary);
    contrastive_case(towers.retrieval.projection);
  }

 private:
  bool wanted(std::string_view name) const { return only_.empty() || only_ == name; }

  Tensor random(const Shape& shape, DType dtype) {
    const Tensor t = ctx_.empty(shape, dtype, "benchmark");
    fill_uniform(t, RngKey{++drawn_});
    return t;
  }
  Tensor random(const Shape& shape) { return random(shape, compute_); }
  Tensor random_master(const Shape& shape) { return random(shape, DType::f32); }
  /// Of elements in the compute type, and of elements in f32.
  double bytes(int64_t elements) const { return static_cast<double>(size_of(compute_)) * static_cast<double>(elements); }
  static double master_bytes(int64_t elements) { return 4.0 * static_cast<double>(elements); }

  void compute_case(const char* name, std::string shapes, double work, int backward, std::vector<Tensor> inputs, Run run) {
    visit_({.name = name,
            .shapes = std::move(shapes),
            .work = work,
            .backward_work = backward * work,
            .inputs = std::move(inputs),
            .run = std::move(run)});
  }
  void memory_case(const char* name, std::string shapes, double work, double backward_work, std::vector<Tensor> inputs, Run run) {
    visit_({.name = name,
            .shapes = std::move(shapes),
            .bound = Bound::memory,
            .work = work,
            .backward_work = backward_work,
            .inputs = std::move(inputs),
            .run = std::move(run)});
  }

  void linear_case(int64_t in, int64_t out) {
    if (!wanted("linear")) return;
    compute_case("linear", fmt::format("({}, {}) to {}", N, in, out), product(N, in, out), 2,
                 {random({N, in}), random({out, in}), random({out})},
                 [](const ExecContext& c, In x) { return linear(c, x[0], x[1], x[2]); });
  }

  void mlp_case() {
    if (!wanted("mlp")) return;
    compute_case("mlp", fmt::format("({}, {}) by {}", N, D, F), 2 * product(N, D, F), 2,
                 {random({N, D}), random({F, D}), random({F}), random({D, F}), random({D})},
                 [](const ExecContext& c, In x) { return mlp(c, x[0], {.w1 = x[1], .b1 = x[2], .w2 = x[3], .b2 = x[4]}); });
  }

  /// Of a causal mask half the scores count.
  void attention_case(int64_t tokens, AttentionMask mask = AttentionMask::none) {
    if (!wanted("attention")) return;
    const bool causal = mask == AttentionMask::causal;
    const double work = (causal ? 1 : 2) * product(B * tokens, tokens, D);
    visit_({.name = "attention",
            .shapes = fmt::format("B {} T {} H {} Dh {}{}", B, tokens, H, D / H, causal ? " causal" : ""),
            .work = work,
            .backward_work = 2.5 * work,  // five products for two: the scores are made again
            .inputs = {random({B, tokens, 3 * D})},
            .run = [heads = H, mask](const ExecContext& c, In x) { return attention(c, x[0], heads, mask); }});
  }

  /// The way back writes the whole table's gradient.
  void embedding_case(int64_t vocabulary) {
    if (!wanted("embedding")) return;
    const Tensor ids = ctx_.empty({N}, DType::i32, "benchmark"), host = engine_.host_ctx().empty({N}, DType::i32);
    for (int64_t i = 0; i < N; ++i)
      host.data<int32_t>()[i] = static_cast<int32_t>(uniform_int(RngKey{9}, static_cast<uint64_t>(i), static_cast<uint64_t>(vocabulary)));
    copy(host, ids);
    memory_case("embedding", fmt::format("{} of ({}, {})", N, vocabulary, D), bytes(2 * N * D), bytes(N * D) + master_bytes(vocabulary * D),
                {random({vocabulary, D})}, [ids](const ExecContext& c, In x) { return embedding(c, x[0], ids); });
  }

  /// Features are f32, as heads make them. Each side makes its products, and on the way back again, with a product for its features.
  void contrastive_case(int64_t width) {
    if (!wanted("contrastive_loss")) return;
    compute_case("contrastive_loss", fmt::format("({}, {})", B, width), 2 * product(B, B, width), 2,
                 {random_master({B, width}), random_master({B, width}), random_master({1})},
                 [](const ExecContext& c, In x) { return contrastive_loss(c, x[0], x[1], x[2]); });
  }

  void patch_embed_case() {
    if (!wanted("patch_embed")) return;
    const Shape weight = patch_weight_shape(model_);
    // The images want no gradient: its work is that of the weight's alone.
    const Tensor images = random(input_shape(model_, B));
    compute_case("patch_embed", fmt::format("{} in patches of {} to {}", images.shape().str(), model_.patch, D),
                 product(B * patch_grid(model_).numel(), weight.numel() / D, D), 1, {random(weight), random({D})},
                 [images, margin = model_.patch_margin](const ExecContext& c, In x) {
                   return patch_embed(c, Variable(images), x[0], x[1], margin);
                 });
  }

  void elementwise() {
    if (wanted("layer_norm"))
      memory_case("layer_norm", fmt::format("({}, {})", N, D), bytes(2 * N * D), bytes(3 * N * D),
                  {random({N, D}), random({D}), random({D})},
                  [](const ExecContext& c, In x) { return layer_norm(c, x[0], x[1], x[2], 1e-6); });
    if (wanted("add_layer_norm"))
      memory_case("add_layer_norm", fmt::format("({}, {})", N, D), bytes(4 * N * D), bytes(3 * N * D),
                  {random({N, D}), random({N, D}), random({D}), random({D})},
                  [](const ExecContext& c, In x) { return add_layer_norm(c, x[0], x[1], x[2], x[3], 1e-6).normed; });
    if (wanted("gelu"))
      memory_case("gelu", fmt::format("({}, {})", N, F), bytes(2 * N * F), bytes(3 * N * F), {random({N, F})},
                  [](const ExecContext& c, In x) { return gelu(c, x[0]); });
    if (wanted("softmax"))
      memory_case("softmax", fmt::format("({}, {})", N, 1000), bytes(2000 * N), bytes(3000 * N), {random({N, 1000})},
                  [](const ExecContext& c, In x) { return softmax(c, x[0]); });
    if (wanted("cross_entropy")) {
      const int64_t Y = std::max<int64_t>(2, model_.classes);
      const Tensor targets = random_master({B, Y});
      memory_case("cross_entropy", fmt::format("({}, {})", B, Y), bytes(B * Y) + master_bytes(B * Y),
                  bytes(2 * B * Y) + master_bytes(B * Y), {random({B, Y})},
                  [targets](const ExecContext& c, In x) { return cross_entropy(c, x[0], targets); });
    }
  }

  void router_score_case() {
    if (!wanted("router_score")) return;
    const Tensor mean_x = random_master({D}), mean_c = random_master({D});
    compute_case("router_score", fmt::format("N {} D {} E {} R {}", N, D, E, R), 2 * product(N, D, E * R), 2,
                 {random({N, D}), random({N, D}), random({E, R, D})},
                 [=](const ExecContext& c, In x) { return context_cosine(c, x[0], x[1], x[2], mean_x, mean_c); });
  }

  Selection best_experts(const ExecContext& c, const Tensor& scores) const {
    SelectArgs args;
    args.scores = scores;
    args.slots = K;
    return select_experts(c, args);
  }

  void selection() {
    const Tensor scores = random_master({N, E}), ids = best_experts(ctx_, scores).ids;
    const std::string shapes = fmt::format("({}, {}), {} chosen", N, E, K);
    if (wanted("select"))
      memory_case("select", shapes, master_bytes(N * (E + K)), 0, {scores}, [this](const ExecContext& c, In x) {
        best_experts(c, x[0].value);
        return Variable();
      });
    if (wanted("plan"))
      memory_case("plan", shapes, master_bytes(4 * N * K), 0, {}, [ids, experts = E](const ExecContext& c, In) {
        make_plan(c, ids, experts);
        return Variable();
      });
    if (wanted("combine_weights"))
      memory_case("combine_weights", shapes, master_bytes(N * (E + 2 * K)), master_bytes(N * (2 * E + 2 * K)), {scores},
                  [ids](const ExecContext& c, In x) { return combine_weights(c, x[0], ids, CombineRule::normalized, {}, {}); });
  }

  void experts() {
    const RoutingPlan plan = make_plan(ctx_, best_experts(ctx_, random_master({N, E})).ids, E);
    const int64_t rows = N * K;
    if (wanted("dispatch"))
      memory_case("dispatch", fmt::format("({}, {}) to {}", N, D, rows), bytes((1 + K) * N * D), bytes((1 + K) * N * D), {random({N, D})},
                  [plan](const ExecContext& c, In x) { return dispatch(c, x[0], plan); });
    if (wanted("combine"))
      memory_case("combine", fmt::format("({}, {}) to {}", rows, D, N), bytes((1 + K) * N * D), bytes((1 + 2 * K) * N * D),
                  {random({rows, D}), random_master({N, K})}, [plan](const ExecContext& c, In x) { return combine(c, x[0], x[1], plan); });
    for (const auto& [in, out] : {std::pair{D, F}, {F, D}})
      if (wanted("grouped_linear"))
        compute_case("grouped_linear", fmt::format("({}, {}) to {}, {} experts", rows, in, out, E), product(rows, in, out), 2,
                     {random({rows, in}), random({E, out, in}), random({E, out})},
                     [plan](const ExecContext& c, In x) { return grouped_linear(c, x[0], x[1], x[2], plan); });
    if (wanted("grouped_mlp"))
      compute_case(
          "grouped_mlp", fmt::format("({}, {}) by {}, {} experts", rows, D, F, E), 2 * product(rows, D, F), 2,
          {random({rows, D}), random({E, F, D}), random({E, F}), random({E, D, F}), random({E, D})},
          [plan](const ExecContext& c, In x) { return grouped_mlp(c, x[0], {.w1 = x[1], .b1 = x[2], .w2 = x[3], .b2 = x[4]}, plan); });
  }

  void factors() {
    if (wanted("materialize")) {
      const Tensor u = random_master({E, F, D});
      FactorTwins twins;
      if (compute_ == DType::bf16) convert(u, twins.u = ctx_.empty(u.shape(), DType::bf16));
      compute_case("materialize", fmt::format("{} x ({}, {}) of rank {}", E, F, D, D), static_cast<double>(E) * product(F, D, D), 2,
                   {u, random_master({E, D}), random_master({E, D, D})},
                   [shape = Shape{E, F, D}, dtype = compute_, twins](const ExecContext& c, In x) {
                     return materialize(c, x[0], x[1], x[2], c.empty(shape, dtype), twins);
                   });
    }
    for (const StiefelMethod method :
         {StiefelMethod::newton_schulz, StiefelMethod::gram_schmidt, StiefelMethod::cholesky_qr, StiefelMethod::cayley})
      if (wanted("stiefel_step")) stiefel_case(method);
    if (wanted("project_off")) {
      const int64_t columns = std::min(E * R, D);  // of a tiny model not all experts have a basis of their own
      const Tensor basis = columns_of_identity(1, D, columns).reshape({D, columns});
      compute_case("project_off", fmt::format("{} x ({}, {}) off {} columns", E, D, D - R, R),
                   2 * static_cast<double>(E) * product(D, R, D - R), 0, {random_master({E, D, D - R})},
                   [basis](const ExecContext& c, In x) {
                     project_off_basis(c, basis, x[0].value);
                     return Variable();
                   });
    }
  }

  /// (count, rows, columns) f32 with orthonormal columns, rows at most.
  Tensor columns_of_identity(int64_t count, int64_t rows, int64_t columns) const {
    check(columns <= rows, "[op_cases] {} columns of {} rows cannot be orthonormal", columns, rows);
    const Tensor q = Tensor::zeros(*engine_.host_ctx().allocator, {count, rows, columns}, DType::f32, "benchmark");
    for (int64_t e = 0; e < count; ++e)
      for (int64_t i = 0; i < columns; ++i) q.data<float>()[(e * rows + i) * columns + i] = 1;
    return on_device_of(ctx_, q);
  }

  /// Work: two products for the tangent step, two for a retraction. With a twin and a direction as a training step has them.
  void stiefel_case(StiefelMethod method) {
    const Tensor q = columns_of_identity(E, F, D), twin = compute_ == DType::bf16 ? ctx_.empty(q.shape(), compute_) : Tensor();
    if (twin.defined()) convert(q, twin);
    const Tensor direction = random(q.shape(), direction_dtype(ctx_, q, method, twin));
    compute_case("stiefel_step", fmt::format("{} x ({}, {}), {}", E, F, D, enum_name(method)),
                 4 * static_cast<double>(E) * product(F, D, D), 0, {q}, [=](const ExecContext& c, In x) {
                   stiefel_step(c, x[0].value, direction, 1e-3, method, twin);
                   return Variable();
                 });
  }

  /// The table of all parameters, as a training step has it: weights, gradients and moments read, all but gradients written.
  void optimizer() {
    if (!wanted("adamw")) return;
    const Shape shape{F, 4 * F};
    AdamwEntry entry;
    entry.p = random_master(shape);
    entry.g = random_master(shape);
    entry.m = random_master(shape);
    entry.v = ctx_.empty(shape, DType::f32, "benchmark");
    fill(entry.v, 0.5);
    double twin = 0;
    if (compute_ == DType::bf16) {
      entry.compute = ctx_.empty(shape, compute_);
      twin = bytes(shape.numel());
    }
    const AdamwTable table(ctx_, DType::f32, std::span(&entry, 1));
    const Tensor state = make_step_state(ctx_);
    accept_step(ctx_, AdamRule{}, 1e-6, 1, state);
    memory_case("adamw", shape.str(), master_bytes(7 * shape.numel()) + twin, 0, {}, [=](const ExecContext& c, In) {
      table.step(c, AdamRule{}, state);
      return Variable();
    });
  }

  const Engine& engine_;
  const ExecContext& ctx_;
  const VitConfig& model_;
  const Visit& visit_;
  const DType compute_;
  const std::string& only_;
  const int64_t B, T, D, F, E, K, H, R, N;
  uint64_t drawn_ = 0;
};

}  // namespace

int64_t table_batch(Workload workload) {
  if (workload == Workload::c10) return 1024;
  if (workload == Workload::s16 || workload == Workload::clip) return 256;
  if (workload == Workload::b16) return 128;
  return 32;  // of volumes
}

void for_each_op(const Engine& engine, const OpOptions& options, const std::function<void(const OpCase&)>& visit) {
  const VitConfig model = workload_model({.workload = options.workload});
  Cases(engine, options, model, tokens_of(model), visit).all();
  if (!has_text(options.workload)) return;
  const DualConfig towers = workload_towers({.workload = options.workload});
  const VitConfig blocks = text_blocks(towers.image, towers.text);
  Cases(engine, options, blocks, towers.text.context, visit).text(towers);
}

}  // namespace ermoe
