#include "ops/patch_embed.h"

#include "ops/checks.h"
#include "ops/kernels/patch_embed.h"
#include "ops/linear.h"

#include <algorithm>

namespace ermoe {
namespace {

struct ExtractPatches {
  static constexpr const char* name = "extract_patches";
  PatchDims dims;

  void backward(const ExecContext& ctx, const Tensor& dy, GradWriter& out) const {
    const GradSlot dx = out.into(0);
    dispatch_compute(dy.dtype(), name, [&](auto tag) {
      using T = decltype(tag);
      on_device(
          ctx, tag, [&](auto) { cpu::extract_patches_backward(dims, dy.data<T>(), dx.dst.data<T>(), dx.mode); },
          [&](auto) { cuda::extract_patches_backward(ctx.stream, dims, dy.data<T>(), dx.dst.data<T>(), dx.mode); });
    });
  }
};

PatchDims dims_of(const Shape& images, int64_t patch, int64_t margin) {
  check(images.rank() == 4 || images.rank() == 5, "[extract_patches] images {} are neither (B, C, H, W) nor (B, C, X, Y, Z)", images.str());
  check(patch > 0 && margin >= 0, "[extract_patches] images {} in patches of {} with a margin of {}", images.str(), patch, margin);
  PatchDims dims{.batch = images[0], .channels = images[1]};
  const int spatial = images.rank() - 2;
  for (int axis = 0; axis < spatial; ++axis) {
    const int64_t size = images[2 + axis];
    check(size > 0 && size % patch == 0, "[extract_patches] images {} do not divide into patches of {}", images.str(), patch);
    dims.grid[3 - spatial + axis] = size / patch;
    dims.patch[3 - spatial + axis] = patch;
    dims.margin[3 - spatial + axis] = margin;
  }
  return dims;
}

}  // namespace

Variable extract_patches(const ExecContext& ctx, const Variable& images, int64_t patch, int64_t margin) {
  check_floats(ExtractPatches::name, {&images});
  const PatchDims dims = dims_of(images.shape(), patch, margin);
  Tensor y = ctx.empty({dims.batch, dims.tokens(), dims.channels * dims.patch_elements()}, images.dtype());
  dispatch_compute(images.dtype(), ExtractPatches::name, [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag, [&](auto) { cpu::extract_patches_forward(dims, images.value.data<T>(), y.data<T>()); },
        [&](auto) { cuda::extract_patches_forward(ctx.stream, dims, images.value.data<T>(), y.data<T>()); });
  });
  return record(ctx, std::move(y), {&images}, ExtractPatches{.dims = dims});
}

Variable patch_embed(const ExecContext& ctx, const Variable& images, const Variable& w, const Variable& b, int64_t margin) {
  check_floats("patch_embed", {&images, &w, &b});
  const Shape &is = images.shape(), &ws = w.shape();
  check(w.defined() && is.rank() >= 4 && ws.rank() == is.rank() && ws[1] == is[1], "[patch_embed] images {} but weight {}", is.str(),
        ws.str());
  const int64_t patch = ws[2] - 2 * margin;
  for (int axis = 2; axis < ws.rank(); ++axis)
    check(patch > 0 && ws[axis] == ws[2] && is[axis] % patch == 0,
          "[patch_embed] images {} do not divide into the patches of weight {} with a margin of {}", is.str(), ws.str(), margin);
  // Gradients are written flat, so the matrix may share the weight's own slot.
  const Variable matrix(w.value.reshape({ws[0], w.value.numel() / std::max<int64_t>(ws[0], 1)}), w.edge);
  return linear(ctx, extract_patches(ctx, images, patch, margin), matrix, b);
}

}  // namespace ermoe
