// exp and the normal distribution that the compiler can vectorise: straight-line arithmetic in float. In double they are the library's own,
// since the double kernels are the reference.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace ermoe::cpu {

/// e^x. In float: range reduction x = n ln2 + r and the Taylor polynomial of degree 7 in r, |r| <= ln2/2; relative error
/// below 2e-7. Saturates at ±87; a NaN stays one.
inline float exp_of(float x) {
  const float bounded = x < -87.0f ? -87.0f : (x > 88.0f ? 88.0f : x);
  const float shifted = bounded * 1.44269504f + 12582912.0f;  // adding 1.5 * 2^23 rounds to an integer
  const float n = shifted - 12582912.0f;
  const float r = (bounded - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const auto exponent = static_cast<uint32_t>(static_cast<int32_t>(n) + 127) << 23;
  return p * std::bit_cast<float>(exponent);
}
inline double exp_of(double x) { return std::exp(x); }

/// The standard normal distribution at x: Φ(x) and its density φ(x).
template <typename T>
struct Normal {
  T cdf, density;
};

/// In float: Φ by Abramowitz & Stegun 26.2.17, absolute error below 8e-8, which shares its exponential with φ.
inline Normal<float> normal_at(float x) {
  const float a = std::fabs(x);
  const float t = 1.0f / (1.0f + 0.2316419f * a);
  const float density = 0.398942280f * exp_of(-0.5f * x * x);
  float p = 1.330274429f;
  p = p * t - 1.821255978f;
  p = p * t + 1.781477937f;
  p = p * t - 0.356563782f;
  p = p * t + 0.319381530f;
  const float upper = density * p * t;  // 1 - Φ(|x|)
  return {x < 0 ? upper : 1.0f - upper, density};
}
inline Normal<double> normal_at(double x) {
  return {0.5 * std::erfc(-x * 0.70710678118654752440), 0.39894228040143267794 * std::exp(-0.5 * x * x)};
}

/// The derivative of x Φ(x), the same bits whatever else is made of `normal`: in double it says which product is fused with
/// the sum, since a compiler would choose Φ's factor 0.5 where Φ has no other use. In float there is but one product.
inline float gelu_slope(float x, const Normal<float>& normal) { return normal.cdf + x * normal.density; }
inline double gelu_slope(double x, const Normal<double>& normal) { return std::fma(x, normal.density, normal.cdf); }

}  // namespace ermoe::cpu
