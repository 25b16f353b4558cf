// exp and erf that the compiler can vectorise: straight-line arithmetic in float. In double they are the library's own,
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

/// erf(x). In float: the Taylor series for abs x < 1/2, and 1 - t e^(-x² + Q(t)), t = 1/(1 + x/2), beyond: a Chebyshev fit
/// of erfc (Press et al., Numerical Recipes, 6.2) with error below 2e-7.
inline float erf_of(float x) {
  const float a = std::fabs(x);
  const float t = 1.0f / (1.0f + 0.5f * a);
  float q = 0.17087277f;
  q = q * t - 0.82215223f;
  q = q * t + 1.48851587f;
  q = q * t - 1.13520398f;
  q = q * t + 0.27886807f;
  q = q * t - 0.18628806f;
  q = q * t + 0.09678418f;
  q = q * t + 0.37409196f;
  q = q * t + 1.00002368f;
  q = q * t - 1.26551223f;
  const float far = 1.0f - t * exp_of(-a * a + q);
  const float s = a * a;  // Taylor series near zero keeps relative accuracy there
  float p = -1.0f / 1320;
  p = p * s + 1.0f / 216;
  p = p * s - 1.0f / 42;
  p = p * s + 1.0f / 10;
  p = p * s - 1.0f / 3;
  p = p * s + 1.0f;
  const float near = 1.12837917f * a * p;
  return std::copysign(a < 0.5f ? near : far, x);
}
inline double erf_of(double x) { return std::erf(x); }

}  // namespace ermoe::cpu
