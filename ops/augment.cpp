#include "ops/augment.h"

#include "ops/kernels/augment.h"
#include "ops/kernels/randaugment.h"

#include <cmath>

namespace ermoe {
namespace {

AugmentDims augment_dims(const ExecContext& ctx, const Tensor& pixels, const AugmentSettings& settings, RngKey key) {
  const Shape& shape = pixels.shape();
  check(pixels.defined() && pixels.dtype() == DType::u8 && shape.rank() == 4 && shape[1] == shape[2] && (shape[3] == 1 || shape[3] == 3),
        "[augment] wants pixels u8 (B, S, S, 1 or 3) but got {} {}", name_of(pixels.dtype()), shape.str());
  check(settings.crop_padding >= 0 && settings.crop_padding <= int64_t{1} << 20, "[augment] crop padding {} is outside 0..{}",
        settings.crop_padding, int64_t{1} << 20);
  check(settings.randaugment_n >= 0 && settings.randaugment_n <= 1000, "[augment] {} RandAugment operations are outside 0..1000",
        settings.randaugment_n);
  check(settings.randaugment_m >= 0 && settings.randaugment_m <= 10, "[augment] RandAugment strength {} is outside [0, 10]",
        settings.randaugment_m);
  check(settings.erasing >= 0 && settings.erasing <= 1, "[augment] erasing probability {} is outside [0, 1]", settings.erasing);
  return {.batch = shape[0],
          .side = shape[1],
          .channels = shape[3],
          .crop_padding = settings.crop_padding,
          .flip = settings.flip,
          .erasing = settings.erasing,
          .first = ctx.part.elements_before(shape[0]),
          .key = key};
}

PixelTable pixel_table(const Normalisation& normalisation, int64_t channels) {
  const auto& [mean, deviation] = normalisation;
  const auto wanted = static_cast<size_t>(channels);
  check(mean.size() == wanted && deviation.size() == wanted, "[augment] {} means and {} deviations for {} channels", mean.size(),
        deviation.size(), channels);
  PixelTable table{};
  for (size_t c = 0; c < wanted; ++c) {
    check(std::isfinite(mean[c]) && std::isfinite(deviation[c]) && deviation[c] > 0, "[augment] channel {} has mean {} and deviation {}", c,
          mean[c], deviation[c]);
    for (int v = 0; v < 256; ++v) table.value[c][v] = static_cast<float>((v / 255.0 - mean[c]) / deviation[c]);
  }
  return table;
}

/// A varied copy of `pixels`.
Tensor randaugment(const ExecContext& ctx, const Tensor& pixels, const AugmentSettings& settings, RngKey key) {
  const Shape& shape = pixels.shape();
  const RandAugmentDims dims{.batch = shape[0],
                             .side = shape[1],
                             .channels = shape[3],
                             .operations = settings.randaugment_n,
                             .strength = settings.randaugment_m / 10,
                             .first = ctx.part.elements_before(shape[0]),
                             .key = key};
  Tensor varied = ctx.empty(shape, DType::u8);
  const auto scratch = ctx.workspace->borrow<uint8_t>(pixels.numel());
  on_device(
      ctx, [&] { cpu::randaugment(dims, pixels.data<uint8_t>(), varied.data<uint8_t>(), scratch.data()); },
      [&](auto) { cuda::randaugment(ctx.stream, dims, pixels.data<uint8_t>(), varied.data<uint8_t>(), scratch.data()); });
  return varied;
}

}  // namespace

Tensor augment(const ExecContext& ctx, const Tensor& pixels, const AugmentSettings& settings, const Normalisation& normalisation,
               RngKey key) {
  const AugmentDims dims = augment_dims(ctx, pixels, settings, key);
  const PixelTable table = pixel_table(normalisation, dims.channels);
  const Tensor source = settings.randaugment_n > 0 ? randaugment(ctx, pixels, settings, key) : pixels;
  Tensor images = ctx.empty({dims.batch, dims.channels, dims.side, dims.side}, DType::f32);
  on_device(
      ctx, [&] { cpu::augment(dims, table, source.data<uint8_t>(), images.data<float>()); },
      [&](auto) { cuda::augment(ctx.stream, dims, table, source.data<uint8_t>(), images.data<float>()); });
  return images;
}

}  // namespace ermoe
