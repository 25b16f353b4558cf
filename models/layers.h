// The small layers of a transformer, named as timm names them. Read next: models/vit.h.
#pragma once

#include "models/config.h"
#include "models/module.h"
#include "ops/attention.h"
#include "ops/layer_norm.h"

namespace ermoe {

enum class Bias { on, off };

/// y = x Wᵀ + b over the last axis, or x Wᵀ.
struct Linear final : Module {
  Linear(int64_t in, int64_t out, Bias with = Bias::on);
  bool with_bias;
  Parameter weight;  // (out, in)
  Parameter bias;    // (out), used where with_bias

  Variable forward(const ExecContext& ctx, const Variable& x);
  void init(RngKey key);
  void visit(const std::string& prefix, const Visitor& visitor) override;
};

/// x + branch, not added up yet: the LayerNorm that reads the sum adds on the way.
struct Residual {
  Variable x;
  Variable branch;  // undefined: x is the sum

  Variable sum(const ExecContext& ctx) const;
};

struct LayerNorm final : Module {
  explicit LayerNorm(int64_t width, double eps = 1e-6);
  double eps;
  Parameter weight;  // (D)
  Parameter bias;    // (D)

  Variable forward(const ExecContext& ctx, const Variable& x);
  NormedSum forward(const ExecContext& ctx, const Residual& x);
  void init();
  void visit(const std::string& prefix, const Visitor& visitor) override;
};

/// What attention hands on: its output, and what the router's context may be made from.
struct AttentionOutput {
  Variable y;    // (B, T, D), after the output projection
  Variable qkv;  // (B, T, 3D), after QK-norm
};

struct SelfAttention final : Module {
  struct Settings {
    int64_t width = 0;  // D
    int64_t heads = 1;
    bool qk_norm = false;
    AttentionMask mask = AttentionMask::none;
    double eps = 1e-6;  // of QK-norm
  };
  explicit SelfAttention(const Settings& settings);
  int64_t heads;
  bool with_qk_norm;
  AttentionMask mask;
  Linear qkv, proj;
  LayerNorm q_norm, k_norm;  // (Dh), used where with_qk_norm

  AttentionOutput forward(const ExecContext& ctx, const Variable& x);
  void init(RngKey key);
  void visit(const std::string& prefix, const Visitor& visitor) override;
};

/// The dense feed-forward network: fc2(gelu(fc1(x))), or with quick_gelu in its place.
struct Mlp final : Module {
  Mlp(int64_t width, int64_t hidden, Activation activation = Activation::gelu);
  Activation activation;
  Linear fc1, fc2;

  Variable forward(const ExecContext& ctx, const Variable& x);
  void init(RngKey key);
  void visit(const std::string& prefix, const Visitor& visitor) override;
};

/// x · γ, a learned scale an output channel (Touvron et al., arXiv 2103.17239); the identity where it is off.
struct LayerScale final : Module {
  LayerScale(int64_t width, double initial);
  double initial;   // 0: off
  Parameter gamma;  // (D)

  Variable forward(const ExecContext& ctx, const Variable& x);
  void init();
  void visit(const std::string& prefix, const Visitor& visitor) override;
};

}  // namespace ermoe
