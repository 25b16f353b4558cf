#include "ops/augment_volume.h"

#include "ops/kernels/augment_volume.h"

#include <cmath>
#include <numbers>

namespace ermoe {
namespace {

void check_labels(const Tensor& labels, const Shape& s) {
  const Shape wanted{s[0], s[2], s[3], s[4]};
  check(labels.dtype() == DType::f32 || labels.dtype() == DType::i32, "[augment_volume] wants labels f32 or i32 but got {}",
        name_of(labels.dtype()));
  check(labels.shape() == wanted, "[augment_volume] volumes {} but labels {}", s.str(), labels.shape().str());
}

AugmentVolumeDims augment_volume_dims(const ExecContext& ctx, const Tensor& volumes, const VolumeAugment& settings, RngKey key) {
  check(volumes.defined() && volumes.dtype() == DType::f32 && volumes.shape().rank() == 5,
        "[augment_volume] wants volumes f32 (B, C, nz, ny, nx) but got {} {}", name_of(volumes.dtype()), volumes.shape().str());
  const Shape& s = volumes.shape();
  for (const auto& [name, value, most] :
       {std::tuple{"shift", settings.shift, 1e4}, std::tuple{"rotate", settings.rotate, 180.0}, std::tuple{"scale", settings.scale, 10.0},
        std::tuple{"gain", settings.gain, 10.0}, std::tuple{"gamma", settings.gamma, 10.0}, std::tuple{"bias", settings.bias, 10.0},
        std::tuple{"noise", settings.noise, 1e4}})
    check(value >= 0 && value <= most, "[augment_volume] {} {} is outside [0, {}]", name, value, most);
  return {.batch = s[0],
          .channels = s[1],
          .size = {s[4], s[3], s[2]},
          .shift = settings.shift,
          .rotate = settings.rotate * std::numbers::pi / 180,
          .scale = settings.scale,
          .gain = settings.gain,
          .gamma = settings.gamma,
          .bias = settings.bias,
          .noise = settings.noise,
          .flip = settings.flip,
          .first = ctx.part.elements_before(s[0]),
          .key = key};
}

}  // namespace

VolumesAndLabels augment_volume(const ExecContext& ctx, const Tensor& volumes, const Tensor& labels, const VolumeAugment& settings,
                                RngKey key) {
  const AugmentVolumeDims dims = augment_volume_dims(ctx, volumes, settings, key);
  VolumesAndLabels varied{.volumes = ctx.empty(volumes.shape(), DType::f32), .labels = {}};
  const uint32_t* from = nullptr;
  uint32_t* to = nullptr;
  if (labels.defined()) {
    check_labels(labels, volumes.shape());
    varied.labels = ctx.empty(labels.shape(), labels.dtype());
    from = reinterpret_cast<const uint32_t*>(labels.raw());
    to = reinterpret_cast<uint32_t*>(varied.labels.raw());
  }
  on_device(
      ctx, [&] { cpu::augment_volume(dims, volumes.data<float>(), from, varied.volumes.data<float>(), to); },
      [&](auto) { cuda::augment_volume(ctx.stream, dims, volumes.data<float>(), from, varied.volumes.data<float>(), to); });
  return varied;
}

}  // namespace ermoe
