#include "ops/tokens.h"

#include "ops/checks.h"
#include "ops/column_sum.h"
#include "ops/kernels/tokens.h"

namespace ermoe {
namespace {

struct ConcatTokens {
  static constexpr const char* name = "concat_tokens";
  ConcatDims dims;

  void backward(const ExecContext& ctx, const Tensor& dy, GradWriter& out) const {
    if (out.wants(0)) column_sum(ctx, {dims.batch, dims.prefix, dims.prefix + dims.rest}, dy, out.into_master(0));
    if (!out.wants(1)) return;
    const GradSlot dx = out.into(1);
    dispatch_compute(dy.dtype(), name, [&](auto tag) {
      using T = decltype(tag);
      on_device(
          ctx, tag, [&](auto) { cpu::concat_tokens_backward(dims, dy.data<T>(), dx.dst.data<T>(), dx.mode); },
          [&](auto) { cuda::concat_tokens_backward(ctx.stream, dims, dy.data<T>(), dx.dst.data<T>(), dx.mode); });
    });
  }
};

/// The way there is the way back of joining, and the other way round, with a prefix of zeros.
struct SkipTokens {
  static constexpr const char* name = "skip_tokens";
  ConcatDims dims;

  void backward(const ExecContext& ctx, const Tensor& dy, GradWriter& out) const {
    const GradSlot dx = out.into(0);
    dispatch_compute(dy.dtype(), name, [&](auto tag) {
      using T = decltype(tag);
      on_device(
          ctx, tag, [&](auto) { cpu::skip_tokens_backward(dims, dy.data<T>(), dx.dst.data<T>(), dx.mode); },
          [&](auto) { cuda::skip_tokens_backward(ctx.stream, dims, dy.data<T>(), dx.dst.data<T>(), dx.mode); });
    });
  }
};

/// Both the choice of one token and the mean of many: a mean over a range.
struct PoolTokens {
  static constexpr const char* name = "pool_tokens";
  PoolDims dims;

  void backward(const ExecContext& ctx, const Tensor& dy, GradWriter& out) const {
    const GradSlot dx = out.into(0);
    dispatch_compute(dy.dtype(), name, [&](auto tag) {
      using T = decltype(tag);
      on_device(
          ctx, tag, [&](auto) { cpu::pool_tokens_backward(dims, dy.data<T>(), dx.dst.data<T>(), dx.mode); },
          [&](auto) { cuda::pool_tokens_backward(ctx.stream, dims, dy.data<T>(), dx.dst.data<T>(), dx.mode); });
    });
  }
};

struct Reshape {
  static constexpr const char* name = "reshape";

  void backward(const ExecContext&, const Tensor& dy, GradWriter& out) const { out.give(0, dy); }
};

/// Mean over tokens [begin, end).
Variable pool_tokens(const ExecContext& ctx, const Variable& x, int64_t begin, int64_t end) {
  const Shape& s = x.shape();
  const PoolDims dims{.batch = s[0], .tokens = s[1], .width = s[2], .begin = begin, .end = end};
  Tensor y = ctx.empty({dims.batch, dims.width}, x.dtype());
  dispatch_compute(x.dtype(), PoolTokens::name, [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag, [&](auto) { cpu::pool_tokens_forward(dims, x.value.data<T>(), y.data<T>()); },
        [&](auto) { cuda::pool_tokens_forward(ctx.stream, dims, x.value.data<T>(), y.data<T>()); });
  });
  return record(ctx, std::move(y), {&x}, PoolTokens{.dims = dims});
}

}  // namespace

Variable concat_tokens(const ExecContext& ctx, const Variable& prefix, const Variable& x) {
  check_floats(ConcatTokens::name, {&prefix, &x});
  const Shape &p = prefix.shape(), &s = x.shape();
  check(x.defined() && p.rank() == 3 && s.rank() == 3 && p[0] == 1 && p[2] == s[2], "[concat_tokens] prefix {} but x {}", p.str(), s.str());
  const ConcatDims dims{.batch = s[0], .prefix = p[1] * p[2], .rest = s[1] * s[2]};
  Tensor y = ctx.empty({s[0], p[1] + s[1], s[2]}, x.dtype());
  dispatch_compute(x.dtype(), ConcatTokens::name, [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag, [&](auto) { cpu::concat_tokens_forward(dims, prefix.value.data<T>(), x.value.data<T>(), y.data<T>()); },
        [&](auto) { cuda::concat_tokens_forward(ctx.stream, dims, prefix.value.data<T>(), x.value.data<T>(), y.data<T>()); });
  });
  return record(ctx, std::move(y), {&prefix, &x}, ConcatTokens{.dims = dims});
}

Variable skip_tokens(const ExecContext& ctx, const Variable& x, int64_t first_token) {
  check_floats(SkipTokens::name, {&x});
  const Shape& s = x.shape();
  check(s.rank() == 3 && first_token >= 0 && first_token < s[1], "[skip_tokens] tokens from {} on of x {}", first_token, s.str());
  const ConcatDims dims{.batch = s[0], .prefix = first_token * s[2], .rest = (s[1] - first_token) * s[2]};
  Tensor y = ctx.empty({s[0], s[1] - first_token, s[2]}, x.dtype());
  dispatch_compute(x.dtype(), SkipTokens::name, [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag, [&](auto) { cpu::concat_tokens_backward(dims, x.value.data<T>(), y.data<T>(), Accumulate::overwrite); },
        [&](auto) { cuda::concat_tokens_backward(ctx.stream, dims, x.value.data<T>(), y.data<T>(), Accumulate::overwrite); });
  });
  return record(ctx, std::move(y), {&x}, SkipTokens{.dims = dims});
}

Variable select_token(const ExecContext& ctx, const Variable& x, int64_t t) {
  check_floats("select_token", {&x});
  check(x.shape().rank() == 3 && t >= 0 && t < x.shape()[1], "[select_token] token {} of x {}", t, x.shape().str());
  return pool_tokens(ctx, x, t, t + 1);
}

Variable mean_pool(const ExecContext& ctx, const Variable& x, int64_t first_token) {
  check_floats("mean_pool", {&x});
  check(x.shape().rank() == 3 && first_token >= 0 && first_token < x.shape()[1], "[mean_pool] tokens from {} on of x {}", first_token,
        x.shape().str());
  return pool_tokens(ctx, x, first_token, x.shape()[1]);
}

Variable reshape(const ExecContext& ctx, const Variable& x, const Shape& shape) {
  check(x.defined(), "[reshape] an undefined input to {}", shape.str());
  return record(ctx, x.value.reshape(shape), {&x}, Reshape{});
}

}  // namespace ermoe
