// The orthogonal step's two large products with their ways out, against sums in double, at sizes ragged against every tile.
#include "cuda/kernels/stiefel_products.h"

#include "tests/cuda/speed.h"

#include <fmt/format.h>

namespace ermoe::testing {
namespace {

using cuda::ProductDims;

size_t at(int64_t i) { return static_cast<size_t>(i); }

float random_number(uint64_t key, int64_t i) { return 2 * uniform(RngKey{key}, static_cast<uint64_t>(i)) - 1; }

template <typename T>
Tensor random_tensor(GpuBench& gpu, const ProductDims& d, uint64_t key) {
  std::vector<T> values;
  for (int64_t i = 0; i < d.batch * d.m * d.n; ++i) values.emplace_back(random_number(key, i));
  return Tensor::from<T>(gpu.allocator, {d.batch, d.m, d.n}, values);
}

/// Symmetric matrices whose products with random rows are about 1/3.
Tensor symmetric_matrices(GpuBench& gpu, const ProductDims& d, uint64_t key) {
  std::vector<bf16> values;
  for (int64_t matrix = 0; matrix < d.batch; ++matrix)
    for (int64_t i = 0; i < d.n; ++i)
      for (int64_t j = 0; j < d.n; ++j)
        values.emplace_back(random_number(key, (matrix * d.n + std::max(i, j)) * d.n + std::min(i, j)) /
                            std::sqrt(static_cast<float>(d.n)));
  return Tensor::from<bf16>(gpu.allocator, {d.batch, d.n, d.n}, values);
}

/// Σ_k a(i, k) b(k, j), and Σ |a b|.
struct Products {
  std::vector<double> sum, sizes;
  Products(GpuBench& gpu, const ProductDims& d, const Tensor& a_tensor, const Tensor& b_tensor) {
    const auto a = to_doubles(on_host(gpu.ctx, a_tensor)), b = to_doubles(on_host(gpu.ctx, b_tensor));
    sum.assign(a.size(), 0.0);
    sizes.assign(a.size(), 0.0);
    for (int64_t row = 0; row < d.batch * d.m; ++row)
      for (int64_t k = 0; k < d.n; ++k) {
        const double factor = a[at(row * d.n + k)];
        const double* const from = b.data() + (row / d.m * d.n + k) * d.n;
        for (int64_t j = 0; j < d.n; ++j) {
          sum[at(row * d.n + j)] += factor * from[j];
          sizes[at(row * d.n + j)] += std::abs(factor * from[j]);
        }
      }
  }
  /// Tensor cores add 16 products at a time, four by four, and drop what lies below the last bit of the sum so far.
  double slack(const ProductDims& d, size_t i) const { return static_cast<double>(d.n / 16 + 1) * 4 * 0x1p-23 * sizes[i]; }
};

double rounded(double value) { return static_cast<float>(bf16(static_cast<float>(value))); }

void check_step(const ProductDims& d) {
  SCOPED_TRACE(fmt::format("({}, {}, {})", d.batch, d.m, d.n));
  GpuBench gpu;
  if (!is_hopper(gpu)) return;
  constexpr float lr = 0.5f;
  const Tensor q = random_tensor<float>(gpu, d, 1), twin = random_tensor<bf16>(gpu, d, 2), sym = symmetric_matrices(gpu, d, 4);
  const Products products(gpu, d, twin, sym);
  std::vector<double> before;
  for (int round = 0; round < 2; ++round) {
    const Tensor direction = random_tensor<bf16>(gpu, d, 3);
    const auto along = to_doubles(on_host(gpu.ctx, direction)), from = to_doubles(on_host(gpu.ctx, q));
    const Tensor hi = gpu.ctx.empty(q.shape(), DType::bf16), lo = gpu.ctx.empty(q.shape(), DType::bf16);
    cuda::step_wgmma(gpu.ctx.stream, {.dims = d,
                                      .lr = lr,
                                      .q = q.data<float>(),
                                      .twin = twin.data<bf16>(),
                                      .sym = sym.data<bf16>(),
                                      .direction = direction.data<bf16>(),
                                      .hi = hi.data<bf16>(),
                                      .lo = lo.data<bf16>()});
    const auto high = to_doubles(on_host(gpu.ctx, hi)), low = to_doubles(on_host(gpu.ctx, lo)),
               rest = to_doubles(on_host(gpu.ctx, direction));
    std::vector<double> stepped(high.size());
    for (size_t i = 0; i < high.size(); ++i) {
      stepped[i] = high[i] + low[i] + rest[i];
      const double size = std::abs(from[i]) + lr * (std::abs(along[i]) + std::abs(products.sum[i]));
      ASSERT_NEAR(stepped[i], from[i] - lr * (along[i] - products.sum[i]), lr * products.slack(d, i) + 0x1p-22 * size) << i;
      ASSERT_EQ(high[i], rounded(stepped[i])) << i;
      ASSERT_EQ(low[i], rounded(stepped[i] - high[i])) << i;
      ASSERT_EQ(stepped[i], static_cast<double>(static_cast<float>(stepped[i]))) << i;
    }
    if (round == 1) {
      EXPECT_EQ(stepped, before);
    }
    before = stepped;
  }
}

/// Of every third matrix there is no update.
std::vector<uint32_t> which_updates(int64_t batch) {
  std::vector<uint32_t> updates;
  for (int64_t i = 0; i < batch; ++i) updates.push_back(i % 3 != 1 ? 1 : 0);
  return updates;
}

void check_update(const ProductDims& d, bool with_twin) {
  SCOPED_TRACE(fmt::format("({}, {}, {})", d.batch, d.m, d.n));
  GpuBench gpu;
  if (!is_hopper(gpu)) return;
  const ProductDims row{.batch = d.batch, .m = 1, .n = d.n};
  const Tensor own = random_tensor<float>(gpu, row, 1), scale = random_tensor<float>(gpu, row, 2), half = symmetric_matrices(gpu, d, 3);
  const auto updates = which_updates(d.batch);
  const Tensor flags = gpu.ctx.empty({d.batch}, DType::i32);
  gpu.ctx.allocator->source().upload(flags.data<int32_t>(), updates.data(), updates.size() * sizeof(uint32_t));
  const Tensor hi = random_tensor<bf16>(gpu, d, 4);
  std::vector<bf16> low, last;
  for (int64_t i = 0; i < d.batch * d.m * d.n; ++i) {
    low.emplace_back(random_number(5, i) / 512);
    last.emplace_back(random_number(6, i) / 131072);
  }
  const Tensor lo = Tensor::from<bf16>(gpu.allocator, hi.shape(), low), rest = Tensor::from<bf16>(gpu.allocator, hi.shape(), last);
  const Tensor q = gpu.ctx.empty(hi.shape(), DType::f32), twin = gpu.ctx.empty(hi.shape(), DType::bf16);
  cuda::update_wgmma(gpu.ctx.stream, {.dims = d,
                                      .hi = hi.data<bf16>(),
                                      .lo = lo.data<bf16>(),
                                      .rest = rest.data<bf16>(),
                                      .half = half.data<bf16>(),
                                      .own = own.data<float>(),
                                      .scale = scale.data<float>(),
                                      .updates = reinterpret_cast<const unsigned*>(flags.data<int32_t>()),
                                      .q = q.data<float>(),
                                      .twin = with_twin ? twin.data<bf16>() : nullptr});
  const Products products(gpu, d, hi, half);
  const auto result = to_doubles(on_host(gpu.ctx, q)), narrow = to_doubles(on_host(gpu.ctx, twin));
  const auto high = to_doubles(on_host(gpu.ctx, hi)), left = to_doubles(on_host(gpu.ctx, own)), right = to_doubles(on_host(gpu.ctx, scale));
  for (size_t i = 0; i < result.size(); ++i) {
    const int64_t matrix = static_cast<int64_t>(i) / (d.m * d.n);
    const size_t column = at(matrix * d.n + static_cast<int64_t>(i) % d.n);
    const double stepped = static_cast<double>(static_cast<float>(high[i]) + static_cast<float>(low[i])) + static_cast<float>(last[i]);
    const bool updated = updates[at(matrix)] != 0;
    const double wanted = updated ? stepped * left[column] + products.sum[i] * right[column] : stepped;
    const double slack = updated ? products.slack(d, i) * std::abs(right[column]) : 0;
    ASSERT_NEAR(result[i], wanted, slack + 0x1p-22 * (std::abs(stepped) + std::abs(products.sum[i]))) << i;
    if (with_twin) {
      ASSERT_EQ(narrow[i], rounded(result[i])) << i;
    }
  }
}

/// The last two have more tiles than a GPU has multiprocessors: blocks take several, and use slots again.
std::vector<ProductDims> ragged() {
  if (small_sizes()) return {{5, 1, 64}, {3, 75, 72}, {140, 10, 64}};
  return {{1, 64, 64},   {5, 1, 64},   {3, 75, 72},    {2, 700, 136},  {3, 333, 200}, {1, 520, 392},
          {2, 130, 768}, {7, 65, 584}, {20, 260, 136}, {60, 260, 136}, {100, 65, 392}};
}

TEST(StiefelProductsOnGpu, AStepIsThatOfSumsInDouble) {
  for (const ProductDims& dims : ragged()) ERMOE_NEEDS_GPU(check_step(dims));
}

TEST(StiefelProductsOnGpu, AnUpdateIsThatOfSumsInDouble) {
  for (const ProductDims& dims : ragged())
    for (const bool with_twin : {true, false}) ERMOE_NEEDS_GPU(check_update(dims, with_twin));
}

}  // namespace
}  // namespace ermoe::testing
