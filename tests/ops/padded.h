// Losses over tokens of which some are padding, beside the same of those that are none.
#pragma once

#include "ops/token_weights.h"
#include "tests/ops/op_case.h"

#include <functional>
#include <vector>

namespace ermoe::testing {

/// Rows of equal groups. Padding is a third of each group's rows, among the others, and its end.
struct Padded {
  int64_t rows = 0, groups = 1;

  bool is_padding(int64_t n) const {
    const int64_t each = rows / groups, place = n % each;
    return place % 3 == 1 || place > each * 4 / 5;
  }
  Tensor weights(const ExecContext& ctx, DType dtype) const {
    std::vector<uint8_t> mask;
    for (int64_t n = 0; n < rows; ++n) mask.insert(mask.end(), 2, is_padding(n) ? 0 : 1);
    return token_weights(ctx, Tensor::from<uint8_t>(*ctx.allocator, {rows, 2}, mask), groups, dtype);
  }
  /// Of `all` (rows, …) the rows that are no padding.
  template <typename T>
  Tensor without(const ExecContext& ctx, const Tensor& all) const {
    std::vector<T> left;
    const int64_t columns = all.numel() / rows;
    for (int64_t n = 0; n < rows; ++n)
      if (!is_padding(n)) left.insert(left.end(), all.data<T>() + n * columns, all.data<T>() + (n + 1) * columns);
    return Tensor::from<T>(*ctx.allocator, all.shape().with(0, std::ssize(left) / columns), left);
  }
};

/// The weights of x's rows, in the dtype of its losses.
inline Tensor some_weights(const ExecContext& ctx, const Variable& x, int64_t rows, int64_t groups = 1) {
  return Padded{rows, groups}.weights(ctx, master_of(x.dtype()));
}

/// A loss of x (N, D) f64 and of what else has a row for each of x's, which goes through `keep`.
using PaddedLoss =
    std::function<Variable(const ExecContext&, const Variable& x, const std::function<Tensor(const Tensor&)>& keep, const Tensor& weights)>;

/// The loss with weights is that of the other rows alone, and so are their slopes; padding has none.
template <typename Other>
void expect_padding_says_nothing(const Padded& padded, int64_t columns, const PaddedLoss& loss) {
  TestBench bench;
  const Tensor x = random_input(bench.ctx, {{padded.rows, columns}, OpInput::Fill::unit}, DType::f64, RngKey{3});
  const auto differentiate = [&](const Tensor& at, const std::function<Tensor(const Tensor&)>& keep, const Tensor& weights) {
    Tape tape;
    const ExecContext ctx = bench.ctx.with_tape(&tape);
    const Variable leaf = tape.leaf(at), value = loss(ctx, leaf, keep, weights);
    tape.backward(ctx, value);
    return std::pair(to_doubles(value.value)[0], tape.grad(leaf));
  };
  const auto as_it_is = [](const Tensor& t) { return t; };
  const auto left = [&](const Tensor& t) { return padded.template without<Other>(bench.ctx, t); };
  const std::pair<double, Tensor> all = differentiate(x, as_it_is, padded.weights(bench.ctx, DType::f64));
  const std::pair<double, Tensor> some = differentiate(padded.without<double>(bench.ctx, x), left, {});
  EXPECT_NEAR(all.first, some.first, 1e-10 * std::abs(some.first));
  EXPECT_LE(normalised_error(to_doubles(padded.without<double>(bench.ctx, all.second)), to_doubles(some.second)), 1e-20);
  for (int64_t n = 0; n < padded.rows; ++n)
    for (int64_t d = 0; d < columns && padded.is_padding(n); ++d) EXPECT_EQ(all.second.data<double>()[n * columns + d], 0) << n;
}

}  // namespace ermoe::testing
