// The grouped GEMMs of a GPU against those of the CPU, on the same rounded inputs: ragged widths, experts without rows, rows
// that no expert fills, pointers that are not aligned. Read next: grouped_linear_speed_test.cpp.
#include "ops/kernels/grouped_linear.h"
#include "ops/kernels/gelu.h"

#include "tests/gpu_bench.h"

#include <fmt/format.h>

#include <numeric>

namespace ermoe::testing {
namespace {

enum class Fill { ragged, sparse, full, one_expert, nobody };

struct Case {
  GroupedLinearDims dims;
  Fill fill = Fill::ragged;
  int64_t shift = 0;  // elements between an aligned address and the data
};

std::string describe(const Case& c) {
  return fmt::format("{} rows, E {}, I {}, O {}, fill {}, shift {}", c.dims.rows, c.dims.experts, c.dims.in, c.dims.out,
                     static_cast<int>(c.fill), c.shift);
}

/// Where each expert's rows begin; with `ragged`, every third expert has none and the last rows are nobody's; with
/// `sparse`, nearly all are.
std::vector<int32_t> offsets_of(const Case& c) {
  const auto E = static_cast<size_t>(c.dims.experts);
  std::vector<double> share(E, 0);
  for (size_t e = 0; e < E; ++e) {
    if ((c.fill == Fill::ragged || c.fill == Fill::sparse) && e % 3 != 1) share[e] = 0.1 + uniform(RngKey{7}, e);
    if (c.fill == Fill::full) share[e] = 1;
    if (c.fill == Fill::one_expert && e == E - 1) share[e] = 1;
  }
  const double filled = c.fill == Fill::ragged   ? 0.9
                        : c.fill == Fill::sparse ? 0.02
                                                 : 1,
               total = std::accumulate(share.begin(), share.end(), 0.0);
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
  Both copy(GpuBench& gpu) const { return Both(gpu, host, shift); }
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

/// One case on both sides.
template <typename T>
class Comparison {
 public:
  explicit Comparison(const Case& c)
      : case_(c),
        dims_(c.dims),
        offsets_(offsets_of(c)),
        starts_(Tensor::from<int32_t>(*gpu_.ctx.allocator, {dims_.experts + 1}, offsets_)),
        x_(gpu_, random_rows(dims_.rows, dims_.in, offsets_.back(), 1), c.shift),
        dy_(gpu_, random_rows(dims_.rows, dims_.out, offsets_.back(), 2), c.shift),
        w_(gpu_, random_values(dims_.experts * dims_.out * dims_.in, 3), c.shift),
        b_(gpu_, random_values(dims_.experts * dims_.out, 4), c.shift) {}

  void expect_forward_agrees(bool biased) {
    const float* bias = biased ? b_.host.data() : nullptr;
    const T* gpu_bias = biased ? b_.data() : nullptr;
    Both<T> y = destination(dims_.rows * dims_.out), pre = destination(dims_.rows * dims_.out), act = destination(dims_.rows * dims_.out);
    cpu::grouped_linear_forward(dims_, x_.host.data(), w_.host.data(), bias, offsets_.data(), y.host.data());
    cuda::grouped_linear_forward(stream(), dims_, x_.data(), w_.data(), gpu_bias, starts(), y.data());
    EXPECT_LE(normalised_error(y.device(), y.reference()), tolerance) << "y";

    pre.host = y.host;
    cpu::gelu_forward({dims_.rows * dims_.out}, pre.host.data(), act.host.data());
    cuda::grouped_linear_gelu_forward(stream(), dims_, x_.data(), w_.data(), gpu_bias, starts(), pre.data(), act.data());
    EXPECT_LE(normalised_error(pre.device(), pre.reference()), tolerance) << "before the GELU";
    // The device's GELU sees the sum before it is rounded to bf16, the reference's the rounded one.
    EXPECT_LE(normalised_error(act.device(), act.reference()), 10 * tolerance) << "behind the GELU";
  }

  void expect_input_agrees(Accumulate mode) {
    Both<T> dx = destination(dims_.rows * dims_.in, mode);
    cpu::grouped_linear_backward_input(dims_, w_.host.data(), offsets_.data(), dy_.host.data(), dx.host.data(), mode);
    cuda::grouped_linear_backward_input(stream(), dims_, w_.data(), starts(), dy_.data(), dx.data(), mode);
    EXPECT_LE(normalised_error(dx.device(), dx.reference()), tolerance) << "dx";
    if (mode == Accumulate::add) return;

    std::vector<float> values = random_values(dims_.rows * dims_.in, 5);
    std::fill(values.begin() + offsets_.back() * dims_.in, values.end(), 0.f);  // what the forward pass leaves there
    Both<T> pre(gpu_, std::move(values), case_.shift), act = destination(dims_.rows * dims_.in);
    act.host = dx.host;
    cpu::gelu_backward_with_y({dims_.rows * dims_.in}, pre.host.data(), act.host.data());
    cuda::grouped_linear_gelu_backward_input(stream(), dims_, w_.data(), starts(), dy_.data(), pre.data(), act.data());
    EXPECT_LE(normalised_error(pre.device(), pre.reference()), tolerance) << "through the GELU";
    EXPECT_LE(normalised_error(act.device(), act.reference()), tolerance) << "the GELU again";
  }

  void expect_parameters_agree(Accumulate mode) {
    Both<float> dw(gpu_, destination_values(dims_.experts * dims_.out * dims_.in, mode), case_.shift);
    Both<float> db(gpu_, destination_values(dims_.experts * dims_.out, mode), case_.shift);
    Both<float> dw_alone = dw.copy(gpu_), db_alone = db.copy(gpu_);
    const auto scratch = gpu_.ctx.workspace->borrow<float>(cuda::grouped_linear_backward_scratch(stream(), dims_));
    const auto run = [&](Destination<float> weight, Destination<float> bias) {
      cuda::grouped_linear_backward_weight<T>(stream(), dims_, x_.data(), starts(), dy_.data(), weight, bias, scratch.data());
    };
    run({dw.data(), mode}, {db.data(), mode});
    run({dw_alone.data(), mode}, {});
    run({}, {db_alone.data(), mode});
    cpu::grouped_linear_backward_weight(dims_, x_.host.data(), offsets_.data(), dy_.host.data(), dw.host.data(), mode);
    cpu::grouped_linear_backward_bias(dims_, offsets_.data(), dy_.host.data(), db.host.data(), mode);
    EXPECT_LE(normalised_error(dw.device(), dw.reference()), 1e-9) << "dw";
    EXPECT_LE(normalised_error(db.device(), db.reference()), 1e-9) << "db";
    EXPECT_EQ(dw_alone.device(), dw.device());
    EXPECT_LE(normalised_error(db_alone.device(), db.reference()), 1e-9) << "db alone";
    if (mode == Accumulate::overwrite) expect_the_same_rounded(dw, db, scratch.data());
  }

 private:
  /// dw of T is the float one rounded, bit for bit, and db is the same beside it. Neither asks dw to be aligned.
  void expect_the_same_rounded(const Both<float>& dw, const Both<float>& db, float* scratch) {
    Both<T> rounded = destination(dims_.experts * dims_.out * dims_.in);
    Both<float> beside(gpu_, destination_values(dims_.experts * dims_.out, Accumulate::overwrite), case_.shift);
    cuda::grouped_linear_backward_weight(stream(), dims_, x_.data(), starts(), dy_.data(), Destination<T>{rounded.data()},
                                         Destination<float>{beside.data()}, scratch);
    std::vector<double> want = dw.device();
    if constexpr (sizeof(T) == 2)
      for (double& value : want) value = static_cast<float>(T(static_cast<float>(value)));
    EXPECT_EQ(rounded.device(), want);
    EXPECT_EQ(beside.device(), db.device());
    Both<T> odd(gpu_, destination_values(dims_.experts * dims_.out * dims_.in, Accumulate::overwrite), case_.shift + 1);
    cuda::grouped_linear_backward_weight(stream(), dims_, x_.data(), starts(), dy_.data(), Destination<T>{odd.data()}, {}, scratch);
    EXPECT_LE(normalised_error(odd.device(), dw.reference()), tolerance) << "dw at an odd address";
  }

  static constexpr double tolerance = sizeof(T) == 2 ? 1e-5 : 1e-9;  // bf16 rounds what it stores; sums are float in both

  const Stream& stream() const { return gpu_.ctx.stream; }
  const int32_t* starts() const { return starts_.data<int32_t>(); }
  Both<T> destination(int64_t size, Accumulate mode = Accumulate::overwrite) {
    return Both<T>(gpu_, destination_values(size, mode), case_.shift);
  }

  GpuBench gpu_;
  Case case_;
  GroupedLinearDims dims_;
  std::vector<int32_t> offsets_;
  Tensor starts_;
  Both<T> x_, dy_, w_, b_;
};

template <typename T>
void expect_products_agree(const Case& c) {
  Comparison<T> both(c);
  both.expect_forward_agrees(true);
  both.expect_forward_agrees(false);
  for (const Accumulate mode : {Accumulate::overwrite, Accumulate::add}) {
    both.expect_input_agrees(mode);
    both.expect_parameters_agree(mode);
  }
}

/// Where small sizes are wanted: one fill, and no large case.
bool bearable(const Case& c) { return !small_sizes() || (c.fill == Fill::ragged && c.dims.rows * (c.dims.in + c.dims.out) <= 400'000); }

void expect_agreement(const std::vector<Case>& cases) {
  for (const Case& c : cases) {
    if (!bearable(c)) continue;
    SCOPED_TRACE(describe(c));
    expect_products_agree<float>(c);
    expect_products_agree<bf16>(c);
  }
}

constexpr Fill fills[] = {Fill::ragged, Fill::full, Fill::one_expert, Fill::nobody};

TEST(GroupedLinearOnGpu, AgreeOnWholeTiles) {
  for (const Fill fill : fills) ERMOE_NEEDS_GPU(expect_agreement({{{512, 4, 128, 256}, fill}, {{640, 2, 384, 128}, fill}}));
}

TEST(GroupedLinearOnGpu, AgreeOnRaggedShapes) {
  for (const Fill fill : fills)
    ERMOE_NEEDS_GPU(
        expect_agreement({{{257, 4, 40, 136}, fill}, {{1003, 5, 200, 328}, fill}, {{500, 40, 16, 24}, fill}, {{1, 1, 8, 8}, fill}}));
}

TEST(GroupedLinearOnGpu, AgreeWhereRowsAreNotAligned) {
  for (const Fill fill : fills)
    ERMOE_NEEDS_GPU(
        expect_agreement({{{37, 3, 7, 5}, fill}, {{130, 2, 48, 33}, fill}, {{190, 3, 129, 64}, fill}, {{200, 3, 64, 72}, fill, 1}}));
}

TEST(GroupedLinearOnGpu, AgreeOnManyRows) {
  ERMOE_NEEDS_GPU(
      expect_agreement({{{12000, 8, 96, 160}, Fill::ragged}, {{3000, 3, 384, 776}, Fill::ragged}, {{9000, 2, 64, 128}, Fill::one_expert}}));
}

/// Several tiles a block whose way out is longer than their products.
TEST(GroupedLinearOnGpu, AgreeWhereKIsShort) {
  for (const Fill fill : fills)
    ERMOE_NEEDS_GPU(expect_agreement({{{2300, 5, 72, 1536}, fill}, {{2300, 5, 1512, 136}, fill}, {{3100, 40, 40, 1152}, fill}}));
}

/// The cut of W's gradient reckons with all rows: here most parts have none.
TEST(GroupedLinearOnGpu, AgreeWhereMostRowsAreNobodys) {
  if (small_sizes()) GTEST_SKIP() << "large shapes";
  ERMOE_NEEDS_GPU(expect_agreement({{{12000, 4, 64, 128}, Fill::sparse}, {{12000, 3, 64, 128}, Fill::nobody}}));
}

TEST(GroupedLinearOnGpu, GiveZerosForNoRows) { ERMOE_NEEDS_GPU(expect_agreement({{{0, 3, 16, 24}, Fill::ragged}})); }

}  // namespace
}  // namespace ermoe::testing
