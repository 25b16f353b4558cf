// GELU on the GPU. For bf16, where the library's normal distribution costs more time than the memory takes: x Φ(x) with
// Φ(-a) = 2^q(a), q a polynomial fitted to log2 Φ(-a) on [0, 6]. Relative error of Φ(-a) under 7e-6, a three-hundredth of a
// bf16's rounding. Read next: cuda/kernels/gelu.cu.
#pragma once

namespace ermoe::cuda {

/// 2^x, to two units in the last place.
__device__ __forceinline__ float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// Φ(-a) for a in [0, 6].
__device__ __forceinline__ float normal_tail(float a) {
  float q = -1.8348144976698677e-06f;
  q = fmaf(q, a, 6.159835174912587e-05f);
  q = fmaf(q, a, -0.0009305253042839468f);
  q = fmaf(q, a, 0.008507892489433289f);
  q = fmaf(q, a, -0.05396007373929024f);
  q = fmaf(q, a, -0.4584643840789795f);
  q = fmaf(q, a, -1.1512510776519775f);
  return power_of_two(fmaf(q, a, -0.9999952912330627f));
}

/// x Φ(x).
__device__ __forceinline__ float fast_gelu(float x) {
  const float tail = normal_tail(fminf(fabsf(x), 6.f));  // beyond 6 it is under 1e-9
  return x * (x > 0 ? 1 - tail : tail);
}

/// Φ(x) + x φ(x).
__device__ __forceinline__ float fast_gelu_slope(float x) {
  const float a = fminf(fabsf(x), 6.f);
  const float density = power_of_two(fmaf(-0.72134752f * a, a, -1.32574806f));  // φ(a) = exp(-a²/2) / √(2π)
  const float below = fmaf(-a, density, normal_tail(a));                        // the slope at -a
  return x > 0 ? 1 - below : below;
}

struct GeluAndSlope {
  float value, slope;
};
/// Both of the above, to the same bits, for little more than one.
__device__ __forceinline__ GeluAndSlope fast_gelu_and_slope(float x) {
  const float a = fminf(fabsf(x), 6.f), tail = normal_tail(a);
  const float density = power_of_two(fmaf(-0.72134752f * a, a, -1.32574806f)), below = fmaf(-a, density, tail);
  return {.value = x * (x > 0 ? 1 - tail : tail), .slope = x > 0 ? 1 - below : below};
}

/// x Φ(x), as exact as a T can hold it.
template <typename T>
__device__ __forceinline__ float gelu_value(float x) {
  if constexpr (sizeof(T) == sizeof(float)) return x * normcdff(x);
  return fast_gelu(x);
}

/// Φ(x) + x φ(x), as exact as a T can hold it.
template <typename T>
__device__ __forceinline__ float gelu_slope(float x) {
  if constexpr (sizeof(T) == sizeof(float)) return normcdff(x) + x * (0.39894228040143267794f * expf(-0.5f * x * x));
  return fast_gelu_slope(x);
}

}  // namespace ermoe::cuda
