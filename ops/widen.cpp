#include "ops/widen.h"

#include "core/flat.h"

namespace ermoe {
namespace {

struct Widen {
  static constexpr const char* name = "widen";

  void backward(const ExecContext&, const Tensor& dy, GradWriter& out) const {
    const GradSlot dx = out.into(0);
    convert(dy, dx.dst, dx.mode);
  }
};

}  // namespace

Variable widen(const ExecContext& ctx, const Variable& x) {
  if (x.dtype() == master_of(x.dtype())) return x;
  Tensor y = ctx.empty(x.shape(), master_of(x.dtype()));
  convert(x.value, y);
  return record(ctx, std::move(y), {&x}, Widen{});
}

}  // namespace ermoe
