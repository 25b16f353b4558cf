// bfloat16 as stored, and what to add it up in. Kernels' contracts include this; it formats no text.
#pragma once

#include "core/rng.h"

#include <cstdint>
#include <cstring>

namespace ermoe {

/// The upper half of a float. Arithmetic happens in float.
struct bf16 {
  uint16_t bits = 0;

  bf16() = default;
  /// Rounds to nearest, ties to even; a NaN stays a NaN.
  ERMOE_HD explicit bf16(float value) {
    uint32_t u = 0;
    memcpy(&u, &value, sizeof u);
    const bool is_nan = (u & 0x7fffffffu) > 0x7f800000u;
    bits = is_nan ? static_cast<uint16_t>((u >> 16) | 0x40u) : static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  }
  ERMOE_HD explicit operator float() const {
    const uint32_t u = static_cast<uint32_t>(bits) << 16;
    float value = 0;
    memcpy(&value, &u, sizeof value);
    return value;
  }
};

template <typename T>
struct MasterOf {
  using type = T;
};
template <>
struct MasterOf<bf16> {
  using type = float;
};
/// What sums, statistics and weights' gradients of T are kept in: float where T is bf16, else T.
template <typename T>
using Master = typename MasterOf<T>::type;

}  // namespace ermoe
