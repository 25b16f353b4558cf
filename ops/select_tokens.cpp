#include "ops/select_tokens.h"

#include "ops/checks.h"
#include "ops/kernels/select_tokens.h"

#include <algorithm>

namespace ermoe {
namespace {

struct SelectTokens {
  static constexpr const char* name = "select_tokens";
  SelectTokensDims dims;
  Tensor index;  // (B) i32

  void backward(const ExecContext& ctx, const Tensor& dy, GradWriter& out) const {
    const GradSlot dx = out.into(0);
    const int32_t* const at = index.data<int32_t>();
    dispatch_compute(dy.dtype(), name, [&](auto tag) {
      using T = decltype(tag);
      on_device(
          ctx, tag, [&](auto) { cpu::select_tokens_backward(dims, dy.data<T>(), at, dx.dst.data<T>(), dx.mode); },
          [&](auto) { cuda::select_tokens_backward(ctx.stream, dims, dy.data<T>(), at, dx.dst.data<T>(), dx.mode); });
    });
  }
};

void check_places(const Tensor& index, const Shape& x) {
  const auto all = index.span<int32_t>();
  const auto bad = std::ranges::find_if(all, [&](int32_t t) { return t < 0 || t >= x[1]; });
  check(bad == all.end(), "[select_tokens] token {} of sequence {} but x {}", bad == all.end() ? 0 : *bad, bad - all.begin(), x.str());
}

}  // namespace

Variable select_tokens(const ExecContext& ctx, const Variable& x, const Tensor& index) {
  check_floats(SelectTokens::name, {&x});
  const Shape& s = x.shape();
  check(s.rank() == 3 && index.defined() && index.dtype() == DType::i32 && index.shape() == Shape{s[0]},
        "[select_tokens] x {} and index {} {}", s.str(), index.defined() ? name_of(index.dtype()) : "undefined", index.shape().str());
  const SelectTokensDims dims{.batch = s[0], .tokens = s[1], .width = s[2]};
  Tensor y = ctx.empty({dims.batch, dims.width}, x.dtype());
  dispatch_compute(x.dtype(), SelectTokens::name, [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag,
        [&](auto) {
          check_places(index, s);
          cpu::select_tokens_forward(dims, x.value.data<T>(), index.data<int32_t>(), y.data<T>());
        },
        [&](auto) { cuda::select_tokens_forward(ctx.stream, dims, x.value.data<T>(), index.data<int32_t>(), y.data<T>()); });
  });
  return record(ctx, std::move(y), {&x}, SelectTokens{.dims = dims, .index = index});
}

}  // namespace ermoe
