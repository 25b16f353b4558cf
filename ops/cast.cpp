#include "ops/cast.h"

#include "core/flat.h"
#include "ops/checks.h"

namespace ermoe {
namespace {

struct Cast {
  static constexpr const char* name = "cast";

  void backward(const ExecContext&, const Tensor& dy, GradWriter& out) const {
    const GradSlot dx = out.into(0);
    convert(dy, dx.dst, dx.mode);
  }
};

}  // namespace

Variable cast(const ExecContext& ctx, const Variable& x, DType to) {
  check_floats(Cast::name, {&x});
  if (x.dtype() == to) return x;
  Tensor y = ctx.empty(x.shape(), to);
  convert(x.value, y);
  return record(ctx, std::move(y), {&x}, Cast{});
}

}  // namespace ermoe
