// Experts of which every token takes a mixture, kept as the factors of one tensor: a CP-factored µMoE layer (Multilinear Mixture of
// Experts: Oldfield et al., arXiv 2402.12550), dense and differentiable, in the place of a block's feed-forward network.
//   a = softmax(G x)                                        coefficients of the E experts, G (E, D)
//   W[e,o,i] = Σ_r A[r,e] V[r,i] U[o,r]                     an expert's matrix, never made
//   µ(x, a) = Σ_e a_e W_e [x, 1] = U ((A a) ∘ (V x + v))    v is V's column for the appended 1, which makes a bias for each expert
//   y = µ2(gelu(µ1(x, a)), a)                               D -> F -> D
// Chosen where the abstract and second-hand notes, all that is known here of it, are silent: both matrices share a; softmax instead of
// entmax, and no normalisation in front of it; A starts at 1 plus a standard normal number, so that the layer begins as one low-rank
// network with a deviation for each expert; V and U start as linear layers do. Read next: models/vit.h.
#pragma once

#include "models/config.h"
#include "models/layers.h"

namespace ermoe {

class CpLayer final : public Module {
 public:
  /// In block number `block` of a model whose settings fit together.
  CpLayer(const VitConfig& model, int64_t block);

  /// x (B, T, D) -> (B, T, D); `mean` (E), of G's dtype, becomes the mean coefficient of each expert over all tokens.
  Variable forward(const ExecContext& ctx, const Variable& x, Tensor& mean);

  int64_t block() const { return block_; }
  int64_t rank() const { return first_.up.weight.shape[1]; }
  /// Floating-point operations of one token, 2 a multiply-add.
  double flops() const;
  void init(RngKey key);
  void visit(const std::string& prefix, const Visitor& visitor) override;

 private:
  /// One factored tensor.
  struct Factors {
    Factors(int64_t experts, int64_t in, int64_t out, int64_t rank);
    Parameter mix;  // A (R, E)
    Linear down;    // V (R, in), v (R)
    Linear up;      // U (out, R), without a bias

    Variable forward(const ExecContext& ctx, const Variable& x, const Variable& a);
    void init(RngKey key);
    void visit(const std::string& prefix, const Visitor& visitor);
  };

  int64_t block_;
  Parameter gate_;  // G (E, D)
  Factors first_, second_;
};

}  // namespace ermoe
