#include "ops/attach_loss.h"

#include "core/flat.h"

namespace ermoe {
namespace {

struct AttachLoss {
  static constexpr const char* name = "attach_loss";
  Tensor seed;  // (): holds the weight, made on the loss's device

  void backward(const ExecContext&, const Tensor& dy, GradWriter& out) const {
    if (out.wants(0)) out.give(0, dy);
    if (out.wants(1)) out.give(1, seed);
  }
};

}  // namespace

Variable attach_loss(const ExecContext& ctx, const Variable& y, const Variable& loss, double weight) {
  check(loss.value.numel() == 1, "[attach_loss] loss {} is not a scalar", loss.shape().str());
  if (ctx.tape == nullptr) return y;
  Tensor seed = ctx.empty(loss.shape(), loss.dtype());
  fill(seed, weight);
  return record(ctx, y.value, {&y, &loss}, AttachLoss{.seed = seed});
}

}  // namespace ermoe
