#include "ops/linear.h"

#include "ops/checks.h"
#include "ops/linear_products.h"

namespace ermoe {
namespace {

struct Linear {
  static constexpr const char* name = "linear";
  LinearDims dims;
  Tensor x;  // (…, I)
  Tensor w;  // (O, I)

  void backward(const ExecContext& ctx, const Tensor& dy, GradWriter& out) const {
    if (out.wants(0)) linear_backward_input(ctx, dims, w, dy, out.into(0));
    linear_backward_parameters(ctx, dims, x, dy, master_slot(out, 1), master_slot(out, 2));
  }
};

LinearDims dims_of(const Variable& x, const Variable& w, const Variable& b) {
  check_floats(Linear::name, {&x, &w, &b});
  check(w.defined(), "[linear] x {} but no weight", x.shape().str());
  check(x.shape().rank() >= 1 && w.shape().rank() == 2 && x.shape()[-1] == w.shape()[1], "[linear] x {} but weight {}", x.shape().str(),
        w.shape().str());
  check(!b.defined() || b.shape() == Shape{w.shape()[0]}, "[linear] weight {} but bias {}", w.shape().str(), b.shape().str());
  return {.rows = x.shape().rows(), .in = w.shape()[1], .out = w.shape()[0]};
}

}  // namespace

Variable linear(const ExecContext& ctx, const Variable& x, const Variable& w, const Variable& b) {
  const LinearDims dims = dims_of(x, w, b);
  Tensor y = ctx.empty(x.shape().with(-1, dims.out), x.dtype());
  linear_forward(ctx, dims, x.value, w.value, b.value, y);
  return record(ctx, std::move(y), {&x, &w, &b}, Linear{.dims = dims, .x = x.value, .w = w.value});
}

}  // namespace ermoe
