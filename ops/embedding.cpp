#include "ops/embedding.h"

#include "ops/checks.h"
#include "ops/kernels/embedding.h"

#include <algorithm>
#include <limits>
#include <vector>

namespace ermoe {
namespace {

struct Embedding {
  static constexpr const char* name = "embedding";
  EmbeddingDims dims;
  Tensor ids;  // (…) i32

  void backward(const ExecContext& ctx, const Tensor& dy, GradWriter& out) const {
    const GradSlot dtable = out.into_master(0);
    dispatch_compute(dy.dtype(), name, [&](auto tag) {
      using T = decltype(tag);
      Master<T>* const dt = dtable.dst.data<Master<T>>();
      on_device(
          ctx, tag, [&](auto) { cpu::embedding_backward(dims, ids.data<int32_t>(), dy.data<T>(), dt, dtable.mode); },
          [&](auto) {
            const auto scratch = ctx.workspace->borrow<std::byte>(cuda::embedding_scratch(dims));
            cuda::embedding_backward(ctx.stream, dims, ids.data<int32_t>(), dy.data<T>(), dt, dtable.mode, scratch.data());
          });
    });
  }
};

void check_ids(const Tensor& ids, const Shape& table) {
  const auto all = ids.span<int32_t>();
  const auto bad = std::ranges::find_if(all, [&](int32_t id) { return id < 0 || id >= table[0]; });
  check(bad == all.end(), "[embedding] id {} at element {} of {} but table {}", bad == all.end() ? 0 : *bad, bad - all.begin(),
        ids.shape().str(), table.str());
}

}  // namespace

Variable embedding(const ExecContext& ctx, const Variable& table, const Tensor& ids) {
  check_floats(Embedding::name, {&table});
  check(table.shape().rank() == 2 && ids.defined() && ids.dtype() == DType::i32, "[embedding] table {} and ids {} {}", table.shape().str(),
        ids.defined() ? name_of(ids.dtype()) : "undefined", ids.shape().str());
  check(ids.numel() <= std::numeric_limits<int32_t>::max(), "[embedding] {} ids", ids.numel());
  const EmbeddingDims dims{.count = ids.numel(), .rows = table.shape()[0], .width = table.shape()[1]};
  std::vector<int64_t> sizes(ids.shape().begin(), ids.shape().end());
  sizes.push_back(dims.width);
  const Tensor y = ctx.empty(Shape(std::span<const int64_t>(sizes)), table.dtype());
  dispatch_compute(table.dtype(), Embedding::name, [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag,
        [&](auto) {
          check_ids(ids, table.shape());
          cpu::embedding_forward(dims, table.value.data<T>(), ids.data<int32_t>(), y.data<T>());
        },
        [&](auto) { cuda::embedding_forward(ctx.stream, dims, table.value.data<T>(), ids.data<int32_t>(), y.data<T>()); });
  });
  return record(ctx, y, {&table}, Embedding{.dims = dims, .ids = ids});
}

}  // namespace ermoe
