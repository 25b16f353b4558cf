// The grouped GEMMs of a GPU against those of the CPU, on the same rounded inputs: ragged widths, experts without rows, rows
// that no expert fills, pointers that are not aligned. Read next: grouped_linear_speed_test.cpp.
#include "ops/kernels/grouped_linear.h"

#include "tests/gpu_bench.h"

#include <fmt/format.h>

#include <numeric>

namespace ermoe::testing {
namespace {

enum class Fill { ragged, full, one_expert, nobody };

struct Case {
  GroupedLinearDims dims;
  Fill fill = Fill::ragged;
  int64_t shift = 0;  // elements between an aligned address and the data
};

std::string describe(const Case& c) {
  return fmt::format("{} rows, E {}, I {}, O {}, fill {}, shift {}", c.dims.rows, c.dims.experts, c.dims.in, c.dims.out,
                     static_cast<int>(c.fill), c.shift);
}

/// Where each expert's rows begin; with `ragged`, every third expert has none and the last rows are nobody's.
std::vector<int32_t> offsets_of(const Case& c) {
  const auto E = static_cast<size_t>(c.dims.experts);
  std::vector<double> share(E, 0);
  for (size_t e = 0; e < E; ++e) {
    if (c.fill == Fill::ragged && e % 3 != 1) share[e] = 0.1 + uniform(RngKey{7}, e);
    if (c.fill == Fill::full) share[e] = 1;
    if (c.fill == Fill::one_expert && e == E - 1) share[e] = 1;
  }
  const double filled = c.fill == Fill::ragged ? 0.9 : 1, total = std::accumulate(share.begin(), share.end(), 0.0);
  std::vector<int32_t> offsets(E + 1, 0);
  double sum = 0;
  for (size_t e = 0; e < E; ++e) {
    sum += share[e];
    offsets[e + 1] = total > 0 ? static_cast<int32_t>(filled * static_cast<double>(c.dims.rows) * sum / total) : 0;
  }
  return offsets;
}

/// The same numbers on both sides: floats that T holds exactly, and T on the GPU, `shift` elements behind an aligned address.
template <typename T>
struct Both {
  std::vector<float> host;
  Tensor block;
  int64_t shift = 0;

  Both(GpuBench& gpu, std::vector<float> values, int64_t shift_by) : host(std::move(values)), shift(shift_by) {
    const auto size = static_cast<int64_t>(host.size());
    Tensor staged = Tensor::empty(host_memory(), {size + shift}, DTypeOf<T>::value);
    for (int64_t i = 0; i < shift; ++i) staged.data<T>()[i] = T(0.f);
    for (int64_t i = 0; i < size; ++i) {
      staged.data<T>()[i + shift] = T(host[static_cast<size_t>(i)]);
      host[static_cast<size_t>(i)] = static_cast<float>(staged.data<T>()[i + shift]);
    }
    block = to_device(gpu.ctx, staged);
  }
  T* data() const { return block.data<T>() + shift; }
  std::vector<double> device() const {
    std::vector<double> all = to_doubles(block);
    return {all.begin() + shift, all.end()};
  }
  std::vector<double> reference() const { return {host.begin(), host.end()}; }
};

std::vector<float> random_values(int64_t size, uint64_t key) {
  std::vector<float> values(static_cast<size_t>(size));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(normal(RngKey{key}, i));
  return values;
}

/// Random rows of which those beyond `filled` must not be read: they are NaN.
std::vector<float> random_rows(int64_t rows, int64_t width, int64_t filled, uint64_t key) {
  std::vector<float> values = random_values(rows * width, key);
  std::fill(values.begin() + filled * width, values.end(), NAN);
  return values;
}

/// What a kernel writes into: NaNs where it overwrites, numbers where it adds.
std::vector<float> destination_values(int64_t size, Accumulate mode) {
  if (mode == Accumulate::add) return random_values(size, 31);
  return std::vector<float>(static_cast<size_t>(size), NAN);
}

template <typename T>
void expect_products_agree(const Case& c) {
  GpuBench gpu;
  const auto [rows, E, I, O] = c.dims;
  const std::vector<int32_t> offsets = offsets_of(c);
  Tensor starts = Tensor::empty(host_memory(), {E + 1}, DType::i32);
  std::copy(offsets.begin(), offsets.end(), starts.data<int32_t>());
  starts = to_device(gpu.ctx, starts);
  const auto* gpu_offsets = starts.data<int32_t>();
  const Stream& stream = gpu.ctx.stream;
  const double tolerance = sizeof(T) == 2 ? 1e-5 : 1e-9;  // bf16 rounds what it stores; sums are float in both

  const Both<T> x(gpu, random_rows(rows, I, offsets.back(), 1), c.shift), dy(gpu, random_rows(rows, O, offsets.back(), 2), c.shift);
  const Both<T> w(gpu, random_values(E * O * I, 3), c.shift), b(gpu, random_values(E * O, 4), c.shift);
  for (const T* bias : {b.data(), static_cast<T*>(nullptr)}) {
    Both<T> y(gpu, destination_values(rows * O, Accumulate::overwrite), c.shift);
    cpu::grouped_linear_forward(c.dims, x.host.data(), w.host.data(), bias != nullptr ? b.host.data() : nullptr, offsets.data(),
                                y.host.data());
    cuda::grouped_linear_forward(stream, c.dims, x.data(), w.data(), bias, gpu_offsets, y.data());
    EXPECT_LE(normalised_error(y.device(), y.reference()), tolerance) << "y";
  }
  for (const Accumulate mode : {Accumulate::overwrite, Accumulate::add}) {
    Both<T> dx(gpu, destination_values(rows * I, mode), c.shift);
    cpu::grouped_linear_backward_input(c.dims, w.host.data(), offsets.data(), dy.host.data(), dx.host.data(), mode);
    cuda::grouped_linear_backward_input(stream, c.dims, w.data(), gpu_offsets, dy.data(), dx.data(), mode);
    EXPECT_LE(normalised_error(dx.device(), dx.reference()), tolerance) << "dx";

    Both<float> dw(gpu, destination_values(E * O * I, mode), c.shift);
    const auto parts = gpu.ctx.workspace->borrow<float>(cuda::grouped_linear_weight_scratch(stream, c.dims));
    const auto scratch = gpu.ctx.workspace->borrow<float>(cuda::grouped_linear_bias_scratch(c.dims));
    cpu::grouped_linear_backward_weight(c.dims, x.host.data(), offsets.data(), dy.host.data(), dw.host.data(), mode);
    cuda::grouped_linear_backward_weight(stream, c.dims, x.data(), gpu_offsets, dy.data(), dw.data(), parts.data(), mode);
    EXPECT_LE(normalised_error(dw.device(), dw.reference()), 1e-9) << "dw";

    Both<float> db(gpu, destination_values(E * O, mode), c.shift);
    cpu::grouped_linear_backward_bias(c.dims, offsets.data(), dy.host.data(), db.host.data(), mode);
    cuda::grouped_linear_backward_bias(stream, c.dims, gpu_offsets, dy.data(), db.data(), scratch.data(), mode);
    EXPECT_LE(normalised_error(db.device(), db.reference()), 1e-9) << "db";
  }
}

void expect_agreement(const std::vector<Case>& cases) {
  for (const Case& c : cases) {
    SCOPED_TRACE(describe(c));
    expect_products_agree<float>(c);
    expect_products_agree<bf16>(c);
  }
}

constexpr Fill fills[] = {Fill::ragged, Fill::full, Fill::one_expert, Fill::nobody};

TEST(GroupedLinearKernels, AgreeOnWholeTiles) {
  for (const Fill fill : fills) ERMOE_NEEDS_GPU(expect_agreement({{{512, 4, 128, 256}, fill}, {{640, 2, 384, 128}, fill}}));
}

TEST(GroupedLinearKernels, AgreeOnRaggedShapes) {
  for (const Fill fill : fills)
    ERMOE_NEEDS_GPU(
        expect_agreement({{{257, 4, 40, 136}, fill}, {{1003, 5, 200, 328}, fill}, {{500, 40, 16, 24}, fill}, {{1, 1, 8, 8}, fill}}));
}

TEST(GroupedLinearKernels, AgreeWhereRowsAreNotAligned) {
  for (const Fill fill : fills)
    ERMOE_NEEDS_GPU(
        expect_agreement({{{37, 3, 7, 5}, fill}, {{130, 2, 48, 33}, fill}, {{190, 3, 129, 64}, fill}, {{200, 3, 64, 72}, fill, 1}}));
}

TEST(GroupedLinearKernels, AgreeOnManyRows) {
  ERMOE_NEEDS_GPU(
      expect_agreement({{{12000, 8, 96, 160}, Fill::ragged}, {{3000, 3, 384, 776}, Fill::ragged}, {{9000, 2, 64, 128}, Fill::one_expert}}));
}

TEST(GroupedLinearKernels, GiveZerosForNoRows) { ERMOE_NEEDS_GPU(expect_agreement({{{0, 3, 16, 24}, Fill::full}})); }

}  // namespace
}  // namespace ermoe::testing
