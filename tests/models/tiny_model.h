// A vision transformer small enough to be differentiated number by number, with images, targets and a loss: what tests of
// models stand on.
#pragma once

#include "autograd/tape.h"
#include "core/enum_names.h"
#include "models/config_rules.h"
#include "models/optim.h"
#include "models/task_loss.h"
#include "models/train_step.h"
#include "models/vit.h"
#include "ops/soft_targets.h"
#include "tests/bench.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace ermoe::testing {

/// Two blocks, the second with four experts of which a token sees two; five tokens an image.
/// Routing as the paper has it, with standardised selection: of all it has the most parts.
inline void use_context_routing(MoeConfig& moe) {
  moe.basis = Basis::leading;
  moe.score = Score::context_cosine;
  moe.combine = Combine::normalized;
}

inline VitConfig tiny_config() {
  VitConfig c;
  c.image_size = 8;
  c.channels = 2;
  c.patch = 4;
  c.width = 16;
  c.depth = 2;
  c.heads = 2;
  c.mlp_ratio = 2;
  c.classes = 4;
  c.moe.experts = 4;
  c.moe.top_k = 2;
  c.moe.hidden = 24;
  c.moe.basis_rank = 4;
  use_context_routing(c.moe);
  return c;
}

/// Every router there is: a new one meets the tests of all.
inline std::vector<RouterKind> all_routers() {
  std::vector<RouterKind> all;
  for (const auto name : enum_names<RouterKind>()) all.push_back(*parse_enum<RouterKind>(name));
  return all;
}

/// Those by which a token chooses its experts: not where experts choose tokens, nor where nothing is chosen.
inline std::vector<RouterKind> choosing_routers() {
  std::vector<RouterKind> all = all_routers();
  std::erase_if(all, [](RouterKind kind) { return kind == RouterKind::soft || kind == RouterKind::expert_choice; });
  return all;
}

inline bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() && (a.numel() == 0 || std::memcmp(a.raw(), b.raw(), a.bytes()) == 0);
}

/// A flat copy of tensors that training changes, by name.
using Snapshot = std::map<std::string, Tensor>;

inline void expect_same(const Snapshot& a, const Snapshot& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, tensor] : a) EXPECT_TRUE(same_bits(tensor, b.at(name))) << name;
}

inline double largest_difference(const Tensor& a, const Tensor& b) {
  const auto x = to_doubles(a), y = to_doubles(b);
  double largest = 0;
  for (size_t i = 0; i < x.size(); ++i) largest = std::isnan(x[i] - y[i]) ? INFINITY : std::max(largest, std::abs(x[i] - y[i]));
  return largest;
}

inline double largest_of(const Tensor& t) {
  double largest = 0;
  for (double v : to_doubles(t)) largest = std::max(largest, std::abs(v));
  return largest;
}

class TinyModel {
 public:
  explicit TinyModel(const VitConfig& config = tiny_config(), DType dtype = DType::f64, uint64_t seed = 1, const LossConfig& loss = {})
      : model(config), dtype_(dtype), loss_(loss) {
    model.allocate(bench.ctx, dtype);
    model.init(bench.ctx, RngKey{seed});
    liven(RngKey{seed}.fold(1));
    images = random_input(bench.ctx, {input_shape(config, batch)}, dtype, RngKey{3});
    targets = random_targets();
  }

  /// Takes the model off its starting point, where the head is zero and biases hide mistakes.
  void liven(RngKey key) {
    for (Parameter* p : parameters_of(model)) {
      if (p->role == Parameter::Role::derived || p->orthonormal) continue;
      const Tensor noise = random_input(bench.ctx, {p->shape}, dtype_, key_of(key, p->name));
      dispatch_float(dtype_, "test", [&](auto tag) {
        using T = decltype(tag);
        for (int64_t i = 0; i < p->shape.numel(); ++i) p->value.data<T>()[i] += static_cast<T>(0.1) * noise.data<T>()[i];
      });
    }
    model.refresh(bench.ctx);
  }

  Variable loss_of(const ExecContext& ctx, const Variable& logits, const Tensor& to) const { return task_loss(ctx, loss_, logits, to); }

  /// Loss and added terms of one pass without gradients; statistics stay as they are.
  double total_loss() {
    ForwardPass pass;
    pass.allow = allow;
    const Variable logits = model.forward(bench.ctx, Variable(images), pass);
    double total = scalar_of(loss_of(bench.ctx, logits, targets).value);
    for (const auto& [name, value] : pass.losses) total += scalar_of(value);
    model.discard_step();
    return total;
  }

  /// Gradients of every trained parameter, over `micro_batches` equal parts of the batch. Statistics are collected.
  void differentiate(int64_t micro_batches = 1) {
    model.arena().begin_gradients();
    routes.clear();
    const int64_t part = images.shape()[0] / micro_batches;
    for (int64_t i = 0; i < micro_batches; ++i) {
      Tape tape;
      const ExecContext ctx = bench.ctx.with_tape(&tape);
      ForwardPass pass;
      pass.allow = allow;
      pass.loss_weight = 1.0 / static_cast<double>(micro_batches);
      const Variable logits = model.forward(ctx, Variable(images.slice(i * part, (i + 1) * part)), pass);
      const Variable loss = loss_of(ctx, logits, targets.slice(i * part, (i + 1) * part));
      const Tensor seed = ctx.empty(loss.shape(), loss.dtype());
      fill(seed, pass.loss_weight);
      tape.backward(ctx, loss, seed);
      routes.insert(routes.end(), pass.routes.begin(), pass.routes.end());
    }
    for (auto role : {Parameter::Role::direct, Parameter::Role::derived}) model.arena().end_gradients(role);
    model.pull_back(bench.ctx);
    model.arena().end_gradients(Parameter::Role::factor);
  }

  std::vector<Parameter*> trained() {
    std::vector<Parameter*> found = parameters_of(model);
    std::erase_if(found, [](const Parameter* p) { return p->role == Parameter::Role::derived || p->shape.numel() == 0; });
    return found;
  }

  Parameter& parameter(const std::string& name) {
    for (Parameter* p : parameters_of(model))
      if (p->name == name) return *p;
    fail("no parameter {}", name);
  }

  Snapshot values() {
    Snapshot all;
    for (const Parameter* p : trained()) all[p->name] = p->value.clone();
    for (const Buffer* b : buffers_of(model)) all["buffer " + b->name] = b->value.clone();
    return all;
  }

  Snapshot gradients() {
    Snapshot all;
    for (const Parameter* p : trained()) all[p->name] = p->grad.clone();
    return all;
  }

  TestBench bench;
  Vit model;
  int64_t batch = 4;
  Tensor images, targets, allow;
  std::vector<RoutingRecord> routes;  // of the last differentiate

 private:
  Tensor random_targets() {
    if (is_regression(loss_.kind)) return random_input(bench.ctx, {{batch, 1}}, dtype_, RngKey{4});
    std::vector<int32_t> labels;
    for (int64_t i = 0; i < batch; ++i) labels.push_back(static_cast<int32_t>(i % model.config().classes));
    const Tensor ids = Tensor::from<int32_t>(bench.allocator, {batch}, labels);
    return soft_targets(bench.ctx, ids, model.config().classes, 0.1, dtype_);
  }

  DType dtype_;
  LossConfig loss_;
};

/// Checks each trained parameter's gradient at a few random elements against central differences of the whole loss.
inline void expect_gradients_match_differences(TinyModel& tiny, int64_t probes = 6) {
  tiny.differentiate();
  tiny.model.discard_step();
  const Snapshot gradients = tiny.gradients();
  double overall = 0;
  for (const auto& [name, grad] : gradients) overall = std::max(overall, largest_of(grad));
  for (Parameter* p : tiny.trained()) {
    const Tensor& grad = gradients.at(p->name);
    // A gradient far below the largest is what rounding of the differences leaves.
    const double scale = std::max(largest_of(grad), 1e-4 * overall);
    for (int64_t probe = 0; probe < probes; ++probe) {
      const auto i = static_cast<int64_t>(
          uniform_int(key_of(RngKey{9}, p->name), static_cast<uint64_t>(probe), static_cast<uint64_t>(p->shape.numel())));
      double& x = p->value.data<double>()[i];
      const double before = x, h = 1e-5;
      const auto at = [&](double value) {
        x = value;
        tiny.model.refresh(tiny.bench.ctx);
        return tiny.total_loss();
      };
      const double numeric = (at(before + h) - at(before - h)) / (2 * h);
      x = before;
      EXPECT_NEAR(numeric, grad.data<double>()[i], 1e-6 * scale) << p->name << " element " << i;
    }
  }
  tiny.model.refresh(tiny.bench.ctx);
}

}  // namespace ermoe::testing
