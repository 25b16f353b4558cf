// Element types, the bf16 storage type, and the one place where a runtime dtype becomes a C++ type.
#pragma once

#include "core/bf16.h"
#include "core/error.h"

#include <cstddef>
#include <cstdint>

namespace ermoe {

enum class DType : uint8_t { f32, f64, bf16, i32, i64, u8 };

constexpr size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f64:
    case DType::i64: return 8;
    case DType::f32:
    case DType::i32: return 4;
    case DType::bf16: return 2;
    case DType::u8: return 1;
  }
  return 0;
}

constexpr const char* name_of(DType dtype) {
  switch (dtype) {
    case DType::f32: return "f32";
    case DType::f64: return "f64";
    case DType::bf16: return "bf16";
    case DType::i32: return "i32";
    case DType::i64: return "i64";
    case DType::u8: return "u8";
  }
  return "?";
}

template <typename T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::f32;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::f64;
};
template <>
struct DTypeOf<bf16> {
  static constexpr DType value = DType::bf16;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType value = DType::i32;
};
template <>
struct DTypeOf<int64_t> {
  static constexpr DType value = DType::i64;
};
template <>
struct DTypeOf<uint8_t> {
  static constexpr DType value = DType::u8;
};

/// What sums, statistics and weights' gradients of a dtype are kept in: `Master<T>` at run time.
constexpr DType master_of(DType dtype) { return dtype == DType::bf16 ? DType::f32 : dtype; }

/// Calls `fn(T{})` with T = float or double; anything else is an error that names the op.
template <typename Fn>
decltype(auto) dispatch_float(DType dtype, const char* op, Fn&& fn) {
  switch (dtype) {
    case DType::f32: return fn(float{});
    case DType::f64: return fn(double{});
    default: fail("[{}] wants f32 or f64 but got {}", op, name_of(dtype));
  }
}

/// The same for a *compute dtype*, as ops' headers call it: f32 or f64 on a CPU, f32 or bf16 on a GPU. Goes with `on_device`.
template <typename Fn>
decltype(auto) dispatch_compute(DType dtype, const char* op, Fn&& fn) {
#if defined(ERMOE_WITH_CUDA)
  if (dtype == DType::bf16) return fn(bf16{});
#endif
  return dispatch_float(dtype, op, std::forward<Fn>(fn));
}

}  // namespace ermoe
