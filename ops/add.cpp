#include "ops/add.h"

#include "ops/checks.h"
#include "ops/column_sum.h"
#include "ops/kernels/add.h"

namespace ermoe {
namespace {

struct Add {
  static constexpr const char* name = "add";

  void backward(const ExecContext&, const Tensor& dy, GradWriter& out) const {
    for (size_t i : {size_t{0}, size_t{1}})
      if (out.wants(i)) out.give(i, dy);
  }
};

/// A row added to each row of x.
struct AddBroadcast {
  static constexpr const char* name = "add_broadcast";
  AddDims dims;

  void backward(const ExecContext& ctx, const Tensor& dy, GradWriter& out) const {
    if (out.wants(0)) out.give(0, dy);
    if (out.wants(1)) column_sum(ctx, {dims.rows, dims.cols, dims.cols}, dy, out.into_master(1));
  }
};

/// y (rows, cols) = x (rows, cols) + b (cols).
Tensor forward(const ExecContext& ctx, const AddDims& dims, const Variable& x, const Variable& b) {
  Tensor y = ctx.empty(x.shape(), x.dtype());
  dispatch_compute(x.dtype(), Add::name, [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag, [&](auto) { cpu::add_forward(dims, x.value.data<T>(), b.value.data<T>(), y.data<T>()); },
        [&](auto) { cuda::add_forward(ctx.stream, dims, x.value.data<T>(), b.value.data<T>(), y.data<T>()); });
  });
  return y;
}

}  // namespace

Variable add(const ExecContext& ctx, const Variable& a, const Variable& b) {
  check_floats("add", {&a, &b});
  check(b.defined() && a.shape() == b.shape(), "[add] {} and {}", a.shape().str(), b.shape().str());
  return record_sum(ctx, forward(ctx, {1, a.value.numel()}, a, b), a, b);
}

Variable record_sum(const ExecContext& ctx, Tensor y, const Variable& a, const Variable& b) {
  return record(ctx, std::move(y), {&a, &b}, Add{});
}

Variable add_rows(const ExecContext& ctx, const Variable& x, const Variable& p) {
  check_floats("add_rows", {&x, &p});
  check(p.defined() && x.shape().rank() >= 1 && p.shape() == x.shape().with(0, 1), "[add_rows] x {} but row {}", x.shape().str(),
        p.shape().str());
  const AddDims dims{.rows = x.shape()[0], .cols = p.value.numel()};
  return record(ctx, forward(ctx, dims, x, p), {&x, &p}, AddBroadcast{.dims = dims});
}

Variable add_bias(const ExecContext& ctx, const Variable& x, const Variable& b) {
  check_floats("add_bias", {&x, &b});
  check(b.defined() && x.shape().rank() >= 1 && b.shape() == Shape{x.shape()[-1]}, "[add_bias] x {} but bias {}", x.shape().str(),
        b.shape().str());
  const AddDims dims{.rows = x.shape().rows(), .cols = b.value.numel()};
  return record(ctx, forward(ctx, dims, x, b), {&x, &b}, AddBroadcast{.dims = dims});
}

}  // namespace ermoe
