// The draws of mixup and cutmix, made on the host: a handful of numbers a batch. Read next: ops/kernels/mix_batch.h.
#include "ops/kernels/mix_batch.h"
#include "ops/augment.h"

#include <algorithm>
#include <cmath>

namespace ermoe {
namespace {

MixDims mix_dims(const Tensor& images, const Tensor& targets) {
  const Shape &x = images.shape(), &y = targets.shape();
  check(images.defined() && targets.defined() && images.dtype() == targets.dtype() && x.rank() == 4 && y.rank() == 2 && x[0] == y[0],
        "[mix_batch] wants images (B, channels, S, S) and targets (B, Y) of one dtype but got {} {} and {} {}", name_of(images.dtype()),
        x.str(), name_of(targets.dtype()), y.str());
  return {.batch = x[0], .channels = x[1], .height = x[2], .width = x[3]};
}

void check_settings(const MixSettings& s) {
  check(std::isfinite(s.mixup) && s.mixup >= 0 && std::isfinite(s.cutmix) && s.cutmix >= 0,
        "[mix_batch] alpha of mixup {} and cutmix {} must be finite and not negative", s.mixup, s.cutmix);
  check(s.probability >= 0 && s.probability <= 1, "[mix_batch] probability {} is outside [0, 1]", s.probability);
  check(s.cutmix_share >= 0 && s.cutmix_share <= 1, "[mix_batch] share of cutmix {} is outside [0, 1]", s.cutmix_share);
}

/// Uniform in (0, 1): its logarithm is finite.
double open_uniform(uint32_t word) { return (static_cast<double>(word) + 0.5) * 0x1p-32; }

/// Logarithm of a Gamma(alpha, 1) number, by Marsaglia and Tsang, "A simple method for generating gamma variables" (2000).
/// Below 1 the number is one of Gamma(alpha + 1) times u^(1/alpha), which underflows for small alpha unless in logarithms.
double log_gamma_draw(double alpha, RngKey key) {
  if (alpha < 1) return log_gamma_draw(alpha + 1, key.fold(0)) + std::log(open_uniform(philox(key, uint64_t{0}).x[0])) / alpha;
  const double d = alpha - 1.0 / 3, c = 1 / std::sqrt(9 * d);
  for (uint64_t attempt = 0;; ++attempt) {  // each succeeds with a probability above 0.95
    const double x = normal(key, 2 * attempt);
    const double root = 1 + c * x;
    if (root <= 0) continue;
    const double log_v = 3 * std::log(root);
    const double u = open_uniform(philox(key, 2 * attempt + 1).x[0]);
    if (std::log(u) < x * x / 2 + d * (1 - std::exp(log_v) + log_v)) return std::log(d) + log_v;
  }
}

/// A Beta(alpha, alpha) number. Below 1e-100 it is 0 or 1 in any case, and logarithms over alpha would leave the range.
double beta_draw(double alpha, RngKey key) {
  alpha = std::max(alpha, 1e-100);
  return 1 / (1 + std::exp(log_gamma_draw(alpha, key.fold(2)) - log_gamma_draw(alpha, key.fold(1))));
}

/// A box of about `share` of the area around a uniform centre, cut off at the border.
Rectangle draw_box(const MixDims& dims, double share, uint32_t row_word, uint32_t column_word) {
  const auto span = [&](int64_t size, uint32_t word) {
    const auto half = static_cast<int64_t>(static_cast<double>(size) * std::sqrt(share)) / 2;
    const int64_t centre = below(word, size);
    const int64_t begin = std::max<int64_t>(centre - half, 0), end = std::min(centre + half, size);
    return std::pair(begin, end - begin);
  };
  const auto [top, height] = span(dims.height, row_word);
  const auto [left, width] = span(dims.width, column_word);
  return {.top = top, .left = left, .height = height, .width = width};
}

void mix_rows(const ExecContext& ctx, const Tensor& x, double own) {
  const int64_t batch = x.shape()[0], width = batch == 0 ? 0 : x.numel() / batch;
  dispatch_compute(x.dtype(), "mix_batch", [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag, [&](auto) { cpu::mix_rows(batch, width, own, x.data<T>()); },
        [&](auto) { cuda::mix_rows(ctx.stream, batch, width, own, x.data<T>()); });
  });
}

void swap_boxes(const ExecContext& ctx, const MixDims& dims, const Rectangle& box, const Tensor& images) {
  dispatch_compute(images.dtype(), "mix_batch", [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag, [&](auto) { cpu::swap_boxes(dims, box, images.data<T>()); },
        [&](auto) { cuda::swap_boxes(ctx.stream, dims, box, images.data<T>()); });
  });
}

}  // namespace

void mix_batch(const ExecContext& ctx, const Tensor& images, const Tensor& targets, const MixSettings& settings, RngKey key) {
  const MixDims dims = mix_dims(images, targets);
  check_settings(settings);
  dispatch_compute(images.dtype(), "mix_batch", [](auto) {});
  const Random4 r = philox(key, uint64_t{0});
  const bool off = settings.mixup == 0 && settings.cutmix == 0;
  if (off || images.numel() == 0 || uniform(r.x[0]) >= settings.probability) return;
  const bool cut = settings.cutmix > 0 && (settings.mixup == 0 || uniform(r.x[1]) < settings.cutmix_share);
  double own = beta_draw(cut ? settings.cutmix : settings.mixup, key);
  if (cut) {
    const Rectangle box = draw_box(dims, 1 - own, r.x[2], r.x[3]);
    own = 1 - static_cast<double>(box.height * box.width) / static_cast<double>(dims.height * dims.width);
    swap_boxes(ctx, dims, box, images);
  } else {
    mix_rows(ctx, images, own);
  }
  mix_rows(ctx, targets, own);
}

}  // namespace ermoe
