#include "core/reduce_parts.h"

#include <algorithm>
#include <type_traits>

namespace ermoe {
namespace {

constexpr int64_t block = 2048;             // elements whose sums stay in the processor's nearest cache
constexpr int64_t worth_threads = 1 << 16;  // elements

/// What T is combined in: unsigned for integers, whose overflow is then defined.
template <typename T>
using Sum = typename std::conditional_t<std::is_integral_v<T>, std::make_unsigned<T>, MasterOf<T>>::type;

template <typename A, typename T, typename Combine>
void combine(std::span<const std::byte* const> parts, T* out, int64_t count, const Combine& combined) {
#pragma omp parallel for schedule(static) if (count >= worth_threads)
  for (int64_t begin = 0; begin < count; begin += block) {
    const int64_t n = std::min(block, count - begin);
    A sum[block];
    const T* first = reinterpret_cast<const T*>(parts[0]) + begin;
    for (int64_t i = 0; i < n; ++i) sum[i] = static_cast<A>(first[i]);
    for (const std::byte* part : parts.subspan(1)) {
      const T* next = reinterpret_cast<const T*>(part) + begin;
      for (int64_t i = 0; i < n; ++i) sum[i] = combined(sum[i], static_cast<A>(next[i]));
    }
    for (int64_t i = 0; i < n; ++i) out[begin + i] = static_cast<T>(sum[i]);
  }
}

template <typename T>
void reduce(ReduceOp op, std::span<const std::byte* const> parts, std::byte* out, int64_t count) {
  T* to = reinterpret_cast<T*>(out);
  if (op == ReduceOp::sum) {
    combine<Sum<T>>(parts, to, count, [](Sum<T> a, Sum<T> b) { return static_cast<Sum<T>>(a + b); });
  } else {
    using M = Master<T>;  // `a != a`: a is NaN, and stays
    combine<M>(parts, to, count, [](M a, M b) { return a != a || a >= b ? a : b; });
  }
}

}  // namespace

void reduce_parts(DType dtype, ReduceOp op, std::span<const std::byte* const> parts, std::byte* out, int64_t count) {
  switch (dtype) {
    case DType::f32: return reduce<float>(op, parts, out, count);
    case DType::f64: return reduce<double>(op, parts, out, count);
    case DType::bf16: return reduce<bf16>(op, parts, out, count);
    case DType::i32: return reduce<int32_t>(op, parts, out, count);
    case DType::i64: return reduce<int64_t>(op, parts, out, count);
    case DType::u8: return reduce<uint8_t>(op, parts, out, count);
  }
}

}  // namespace ermoe
