#include "core/flat.h"

#include "core/kernels/flat.h"

#include <type_traits>

namespace ermoe {
namespace {

template <typename Fn>
void with_float(const Tensor& t, Fn&& fn) {
  if (t.dtype() == DType::bf16) return fn(bf16{});
  dispatch_float(t.dtype(), "convert", fn);
}

template <typename From, typename To>
void convert_on_host(int64_t numel, const From* from, To* to, Accumulate mode) {
  using Via = std::conditional_t<std::is_same_v<From, double> && std::is_same_v<To, double>, double, float>;
  if (mode == Accumulate::overwrite) {
#pragma omp parallel for simd if (numel > 65536) schedule(static)
    for (int64_t i = 0; i < numel; ++i) to[i] = static_cast<To>(static_cast<Via>(from[i]));
  } else {
#pragma omp parallel for simd if (numel > 65536) schedule(static)
    for (int64_t i = 0; i < numel; ++i) to[i] = static_cast<To>(static_cast<Via>(to[i]) + static_cast<Via>(from[i]));
  }
}

/// `fn` with the stream, in a build with CUDA.
template <typename Fn>
void on_gpu(const Tensor& t, [[maybe_unused]] Fn&& fn) {
#if defined(ERMOE_WITH_CUDA)
  fn(t.allocator().source().stream());
#else
  fail("[device] {} of a GPU in a build without CUDA", t.shape().str());
#endif
}

}  // namespace

void fill(const Tensor& t, double value) {
  with_float(t, [&](auto tag) {
    using T = decltype(tag);
    if (t.device().is_cuda()) {
      check(t.dtype() != DType::f64, "[fill] a GPU fills f32 and bf16, not f64");
      on_gpu(t, [&](auto stream) {
        if constexpr (!std::is_same_v<T, double>) cuda::fill(stream, t.numel(), value, t.data<T>());
      });
      return;
    }
    const int64_t numel = t.numel();
    T* const x = t.data<T>();
#pragma omp parallel for simd if (numel > 65536) schedule(static)
    for (int64_t i = 0; i < numel; ++i) x[i] = static_cast<T>(static_cast<Master<T>>(value));
  });
}

void convert(const Tensor& from, const Tensor& to, Accumulate mode) {
  check(from.shape() == to.shape() && from.device() == to.device(), "[convert] {} to {}", from.shape().str(), to.shape().str());
  with_float(from, [&](auto from_tag) {
    with_float(to, [&](auto to_tag) {
      using From = decltype(from_tag);
      using To = decltype(to_tag);
      if (!from.device().is_cuda()) return convert_on_host(from.numel(), from.data<From>(), to.data<To>(), mode);
      check(from.dtype() != DType::f64 && to.dtype() != DType::f64, "[convert] a GPU computes in f32 or bf16, not in f64");
      on_gpu(from, [&](auto stream) {
        if constexpr (!std::is_same_v<From, double> && !std::is_same_v<To, double>)
          cuda::convert(stream, from.numel(), from.data<From>(), to.data<To>(), mode);
      });
    });
  });
}

}  // namespace ermoe
