// Small dual encoders, a contrastive loss of one process made of single ops, and the files of tests/golden/clip.
#pragma once

#include "core/safetensors.h"
#include "models/dual_encoder.h"
#include "models/optim.h"
#include "models/train_step.h"
#include "ops/add.h"
#include "ops/cross_entropy.h"
#include "ops/matmul.h"
#include "ops/scale.h"
#include "ops/tokens.h"
#include "ops/transpose.h"
#include "tests/bench.h"
#include "tests/gpu_bench.h"
#include "tests/models/tiny_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

namespace ermoe::testing {

/// e^x of one number, on a CPU.
struct ExpOp {
  static constexpr const char* name = "exp";
  Tensor y;

  void backward(const ExecContext&, const Tensor& dy, GradWriter& out) const {
    const GradSlot dx = out.into(0);
    dispatch_float(dy.dtype(), name, [&](auto tag) {
      using T = decltype(tag);
      T& to = *dx.dst.data<T>();
      to = (dx.mode == Accumulate::add ? to : T(0)) + *dy.data<T>() * *y.data<T>();
    });
  }
};

inline Variable exp_of(const ExecContext& ctx, const Variable& x) {
  const Tensor y = ctx.empty(x.shape(), x.dtype());
  dispatch_float(x.dtype(), "exp", [&](auto tag) {
    using T = decltype(tag);
    *y.data<T>() = std::exp(*x.value.data<T>());
  });
  return record(ctx, y, {&x}, ExpOp{.y = y});
}

inline Tensor identity(const ExecContext& ctx, int64_t n, DType dtype) {
  TestBench host;
  const Tensor t = Tensor::zeros(host.allocator, {n, n}, dtype);
  dispatch_float(dtype, "identity", [&](auto tag) {
    for (int64_t i = 0; i < n; ++i) t.data<decltype(tag)>()[i * n + i] = 1;
  });
  return t.to(*ctx.allocator);
}

/// Logits (B, B): cosines times a scale (1).
inline Variable pair_logits(const ExecContext& ctx, const Pairs& pairs, const Variable& factor) {
  const Variable cosines = matmul(ctx, pairs.image, pairs.text, Trans::no, Trans::yes);
  const int64_t B = cosines.shape()[0];
  return reshape(ctx, matmul(ctx, reshape(ctx, cosines, {B * B, 1}), reshape(ctx, factor, {1, 1})), {B, B});
}

/// Symmetric InfoNCE, or SigLIP's loss where there is a bias; on a CPU.
inline Variable pair_loss(const ExecContext& ctx, const Pairs& pairs) {
  const Variable logits = pair_logits(ctx, pairs, exp_of(ctx, pairs.log_scale));
  const int64_t B = logits.shape()[0];
  const Tensor own = identity(ctx, B, logits.dtype());
  if (pairs.bias.defined()) {
    const Variable all = reshape(ctx, logits, {B * B, 1});
    return sigmoid_cross_entropy(ctx, reshape(ctx, add_bias(ctx, all, pairs.bias), {B, B}), own);
  }
  return scale(ctx, add(ctx, cross_entropy(ctx, logits, own), cross_entropy(ctx, transpose(ctx, logits), own)), 0.5);
}

/// Two blocks a tower; captions of up to seven tokens that 28 ends.
inline DualConfig small_dual(const std::string& image_experts = "none", const std::string& text_experts = "none") {
  DualConfig c;
  c.image.image_size = 8;
  c.image.patch = 4;
  c.image.width = 12;
  c.image.depth = 2;
  c.image.heads = 3;
  c.image.mlp_ratio = 1.25;
  c.image.moe.layers = image_experts;
  c.image.moe.experts = 4;
  c.image.moe.hidden = 7;
  c.image.moe.rank = 5;
  c.image.moe.basis_rank = 2;
  use_context_routing(c.image.moe);
  c.text = {
      .vocabulary = 29, .end_token = 28, .context = 7, .width = 8, .depth = 2, .heads = 2, .mlp_ratio = 1.25, .moe_layers = text_experts};
  c.retrieval.projection = 6;
  return c;
}

inline const std::vector<int32_t>& four_captions() {
  static const std::vector<int32_t> tokens{27, 3,  9,  28, 0,  0,  0,  27, 5, 5, 11, 20, 1, 28,
                                           27, 28, 28, 28, 28, 28, 28, 27, 1, 2, 3,  4,  5, 28};
  return tokens;
}

}  // namespace ermoe::testing
