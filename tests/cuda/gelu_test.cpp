// GELU on the GPU against the CPU's reference kernels.
#include "ops/kernels/gelu.h"

#include "core/rng.h"
#include "tests/cuda/gpu.h"

#include <cmath>

namespace ermoe::testing {
namespace {

template <typename T>
std::vector<T> random_values(size_t size, uint64_t key) {
  std::vector<T> values(size);
  for (size_t i = 0; i < size; ++i) values[i] = static_cast<T>(3 * normal(RngKey{key}, i));
  return values;
}

/// Normalised squared error; infinite where a NaN is found.
template <typename T>
double error_of(const std::vector<T>& got, const std::vector<T>& want) {
  double difference = 0, reference = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    if (std::isnan(got[i])) return INFINITY;
    difference += (double{got[i]} - double{want[i]}) * (double{got[i]} - double{want[i]});
    reference += double{want[i]} * double{want[i]};
  }
  return reference > 0 ? difference / reference : difference;
}

template <typename T>
void expect_gelu_agrees(size_t size, size_t offset) {
  const double tolerance = sizeof(T) == 4 ? 1e-12 : 1e-28;
  const std::vector<T> x = random_values<T>(size, 1), dy = random_values<T>(size, 2), before = random_values<T>(size, 3);
  const std::vector<T> poison(size, static_cast<T>(NAN));
  const GeluDims dims{static_cast<int64_t>(size)};
  const GpuArray<T> x_gpu(x, offset), dy_gpu(dy, offset), y_gpu(poison, offset);
  std::vector<T> y = poison;
  cpu::gelu_forward(dims, x.data(), y.data());
  cuda::gelu_forward(Stream{}, dims, x_gpu.data(), y_gpu.data());
  EXPECT_LE(error_of(y_gpu.values(), y), tolerance) << size << " elements, offset " << offset;

  for (Accumulate mode : {Accumulate::overwrite, Accumulate::add}) {
    std::vector<T> dx = mode == Accumulate::add ? before : poison;
    const GpuArray<T> dx_gpu(dx, offset);
    cpu::gelu_backward(dims, x.data(), dy.data(), dx.data(), mode);
    cuda::gelu_backward(Stream{}, dims, x_gpu.data(), dy_gpu.data(), dx_gpu.data(), mode);
    EXPECT_LE(error_of(dx_gpu.values(), dx), tolerance) << size << " elements, offset " << offset;
  }
}

using Gelu = OnGpu;

TEST_F(Gelu, AgreesWithTheCpu) {
  for (size_t size : {1, 2, 3, 4, 5, 255, 1024, 1027, 100003})
    for (size_t offset : {0, 1}) {
      expect_gelu_agrees<float>(size, offset);
      expect_gelu_agrees<double>(size, offset);
    }
}

TEST_F(Gelu, OfNothingDoesNothing) { EXPECT_NO_THROW(cuda::gelu_forward<float>(Stream{}, {}, nullptr, nullptr)); }

}  // namespace
}  // namespace ermoe::testing
