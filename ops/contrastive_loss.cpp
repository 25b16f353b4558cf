#include "ops/contrastive_loss.h"

#include "ops/checks.h"
#include "ops/kernels/contrastive_loss.h"
#include "ops/optional_tensor.h"

#include <array>
#include <numeric>
#include <vector>

namespace ermoe {
namespace {

constexpr size_t sides = 2;  // 0: images are the rows, texts the columns; 1: the other way round

/// Where a side's numbers begin among those of a pair.
constexpr int64_t shift_of(size_t side) { return static_cast<int64_t>(side) * shift_numbers; }

/// The features of this rank and those of all.
struct Pairs {
  std::array<Tensor, sides> own, all;  // (b, P), (B, P)
  int64_t first = 0;                   // this rank's pairs are rows [first, first + b) of all

  int64_t rows() const { return own[0].shape()[0]; }
  int64_t count() const { return all[0].shape()[0]; }

  /// The rows from `begin` on that are worked on together.
  PairDims tile(int64_t begin, double weight) const {
    return {.rows = std::min(pair_tile_rows(count()), rows() - begin),
            .cols = count(),
            .width = own[0].shape()[1],
            .first = first + begin,
            .weight = rows() > 0 ? weight / static_cast<double>(rows()) : 0};
  }
  int64_t most_products() const { return std::min(pair_tile_rows(count()), rows()) * count(); }
};

/// How many rows each rank has.
std::vector<int64_t> rows_of_ranks(const ExecContext& ctx, const char* op, int64_t own) {
  const int ranks = ctx.comm->size(), rank = ctx.comm->rank();
  const BatchPart& part = ctx.part;
  std::vector<int64_t> rows(static_cast<size_t>(ranks), own);
  if (ranks == 1 || part.total == 0) return rows;
  check(part == part_of_batch(part.total, rank, ranks) && part.count == own, "[{}] {} pairs at rank {}, whose part is [{}, {}) of {}", op,
        own, rank, part.first, part.first + part.count, part.total);
  for (int r = 0; r < ranks; ++r) rows[static_cast<size_t>(r)] = part_of_batch(part.total, r, ranks).count;
  return rows;
}

/// What the ranks have, in their order; `own` itself where there is one rank.
Tensor gathered(const ExecContext& ctx, const Tensor& own, const std::vector<int64_t>& rows) {
  if (rows.size() == 1) return own;
  const Tensor all = ctx.empty(own.shape().with(0, std::accumulate(rows.begin(), rows.end(), int64_t{0})), own.dtype());
  ctx.comm->all_gather(own, all, rows);
  return all;
}

Pairs gather_pairs(const ExecContext& ctx, const Tensor& image, const Tensor& text, const std::vector<int64_t>& rows) {
  return {.own = {image, text},
          .all = {gathered(ctx, image, rows), gathered(ctx, text, rows)},
          .first = std::accumulate(rows.begin(), rows.begin() + ctx.comm->rank(), int64_t{0})};
}

void check_pairs(const char* op, const Variable& image, const Variable& text, std::initializer_list<const Variable*> scalars) {
  check_floats(op, {&image, &text});
  check(text.defined() && image.shape().rank() == 2 && image.shape() == text.shape() && image.shape()[1] > 0,
        "[{}] wants images and texts (b, P) pair by pair but got {} and {}", op, image.shape().str(), text.shape().str());
  for (const Variable* s : scalars)
    check(s->defined() && s->value.numel() == 1 && s->dtype() == master_of(image.dtype()),
          "[{}] features {} want one {} beside them, not {} {}", op, name_of(image.dtype()), name_of(master_of(image.dtype())),
          name_of(s->dtype()), s->shape().str());
}

template <typename T>
void multiply(const ExecContext& ctx, const PairDims& dims, const T* own, const T* all, Master<T>* products) {
  on_device(
      ctx, T{}, [&](auto) { cpu::pair_products(dims, own, all, products); },
      [&](auto) { cuda::pair_products(ctx.stream, dims, own, all, products); });
}

/// *sum = Σ values.
template <typename T>
void add_up(const ExecContext& ctx, int64_t n, const Master<T>* values, const GradSlot& sum) {
  Master<T>* const to = sum.dst.data<Master<T>>();
  on_device(
      ctx, T{}, [&](auto) { cpu::pair_sum(n, values, to, sum.mode); }, [&](auto) { cuda::pair_sum(ctx.stream, n, values, to, sum.mode); });
}

/// Makes the products of a side tile by tile and hands each to `work(dims, row, products)`.
template <typename T, typename Fn>
void for_tiles(const ExecContext& ctx, const Pairs& pairs, size_t side, double weight, Fn&& work) {
  const auto products = ctx.workspace->borrow<Master<T>>(pairs.most_products());
  const T* const all = pairs.all[1 - side].data<T>();
  for (int64_t row = 0; row < pairs.rows(); row += pair_tile_rows(pairs.count())) {
    const PairDims dims = pairs.tile(row, weight);
    multiply<T>(ctx, dims, pairs.own[side].data<T>() + row * dims.width, all, products.data());
    work(dims, row, products.data());
  }
}

/// The same on the way back: `work(dims, row, products, slopes)` fills the slopes of the products, and the features get theirs from them.
template <typename T, typename Fn>
void pull_back(const ExecContext& ctx, const Pairs& pairs, size_t side, double weight, GradWriter& out, Fn&& work) {
  const GradSlot down = out.wants(side) ? out.into(side) : GradSlot{};
  const auto slopes = ctx.workspace->borrow<T>(pairs.most_products());
  const T* const all = pairs.all[1 - side].data<T>();
  for_tiles<T>(ctx, pairs, side, weight, [&](const PairDims& dims, int64_t row, const Master<T>* products) {
    work(dims, row, products, slopes.data());
    if (!down.dst.defined()) return;
    T* const to = down.dst.template data<T>() + row * dims.width;
    on_device(
        ctx, T{}, [&](auto) { cpu::pair_features_backward(dims, slopes.data(), all, to, down.mode); },
        [&](auto) { cuda::pair_features_backward(ctx.stream, dims, slopes.data(), all, to, down.mode); });
  });
}

struct ContrastiveLoss {
  static constexpr const char* name = "contrastive_loss";
  static constexpr double weight = 0.5;  // of a side
  Pairs pairs;
  Tensor log_scale;               // (1)
  Tensor own_shifts, all_shifts;  // (b, 4), (B, 4): log-sum-exp of the logits of each image, and of each text

  void backward(const ExecContext& ctx, const Tensor& dloss, GradWriter& out) const {
    dispatch_compute(pairs.own[0].dtype(), name, [&](auto tag) { run_backward<decltype(tag)>(ctx, dloss, out); });
  }

  template <typename T>
  void run_backward(const ExecContext& ctx, const Tensor& dloss, GradWriter& out) const {
    using M = Master<T>;
    const M* const dl = dloss.data<M>();
    const int64_t b = pairs.rows();
    const auto of_scale = ctx.workspace->borrow<M>(sides * b);
    for (size_t side = 0; side < sides; ++side) {
      const M *const own = own_shifts.data<M>() + shift_of(side), *const all = all_shifts.data<M>() + shift_of(1 - side);
      pull_back<T>(ctx, pairs, side, weight, out, [&](const PairDims& dims, int64_t row, const M* products, T* slopes) {
        const PairTile<M> tile{.products = products, .log_scale = log_scale.data<M>()};
        const PairShifts<M> shifts{.own = own + pair_shift_numbers * row, .all = all};
        const PairSlopes<T> to{.products = slopes, .log_scale = of_scale.data() + static_cast<int64_t>(side) * b + row, .bias = nullptr};
        on_device(
            ctx, T{}, [&](auto) { cpu::contrastive_slopes(dims, tile, shifts, dl, to); },
            [&](auto) { cuda::contrastive_slopes(ctx.stream, dims, tile, shifts, dl, to); });
      });
    }
    if (out.wants(2)) add_up<T>(ctx, sides * b, of_scale.data(), out.into(2));
  }

  /// Fills `own_shifts`; returns this rank's part of the loss.
  template <typename T>
  void run_forward(const ExecContext& ctx, const Tensor& loss) const {
    using M = Master<T>;
    const int64_t b = pairs.rows();
    const auto losses = ctx.workspace->borrow<M>(sides * b);
    for (size_t side = 0; side < sides; ++side) {
      for_tiles<T>(ctx, pairs, side, weight, [&](const PairDims& dims, int64_t row, const M* products) {
        const PairTile<M> tile{.products = products, .log_scale = log_scale.data<M>()};
        M* const shifts = own_shifts.data<M>() + pair_shift_numbers * row + shift_of(side);
        M* const costs = losses.data() + static_cast<int64_t>(side) * b + row;
        on_device(
            ctx, T{}, [&](auto) { cpu::contrastive_rows(dims, tile, shifts, costs); },
            [&](auto) { cuda::contrastive_rows(ctx.stream, dims, tile, shifts, costs); });
      });
    }
    add_up<T>(ctx, sides * b, losses.data(), {loss, Accumulate::overwrite});
  }
};

struct SigmoidPairLoss {
  static constexpr const char* name = "sigmoid_pair_loss";
  static constexpr double weight = 1;
  Pairs pairs;
  Tensor log_scale, bias;  // (1)

  void backward(const ExecContext& ctx, const Tensor& dloss, GradWriter& out) const {
    dispatch_compute(pairs.own[0].dtype(), name, [&](auto tag) { run_backward<decltype(tag)>(ctx, dloss, out); });
  }

  /// The parameters' gradients come from the images' rows alone, whose losses these are: all pairs stand there once.
  template <typename T>
  void run_backward(const ExecContext& ctx, const Tensor& dloss, GradWriter& out) const {
    using M = Master<T>;
    const M* const dl = dloss.data<M>();
    const int64_t b = pairs.rows();
    const auto of_scale = ctx.workspace->borrow<M>(b), of_bias = ctx.workspace->borrow<M>(b);
    for (size_t side = 0; side < sides; ++side) {
      pull_back<T>(ctx, pairs, side, weight, out, [&](const PairDims& dims, int64_t row, const M* products, T* slopes) {
        const PairTile<M> tile{.products = products, .log_scale = log_scale.data<M>(), .bias = bias.data<M>()};
        const PairSlopes<T> to{.products = slopes,
                               .log_scale = side == 0 ? of_scale.data() + row : nullptr,
                               .bias = side == 0 ? of_bias.data() + row : nullptr};
        on_device(
            ctx, T{}, [&](auto) { cpu::sigmoid_pair_slopes(dims, tile, dl, to); },
            [&](auto) { cuda::sigmoid_pair_slopes(ctx.stream, dims, tile, dl, to); });
      });
    }
    if (out.wants(2)) add_up<T>(ctx, b, of_scale.data(), out.into(2));
    if (out.wants(3)) add_up<T>(ctx, b, of_bias.data(), out.into(3));
  }

  template <typename T>
  void run_forward(const ExecContext& ctx, const Tensor& loss) const {
    using M = Master<T>;
    const auto losses = ctx.workspace->borrow<M>(pairs.rows());
    for_tiles<T>(ctx, pairs, 0, weight, [&](const PairDims& dims, int64_t row, const M* products) {
      const PairTile<M> tile{.products = products, .log_scale = log_scale.data<M>(), .bias = bias.data<M>()};
      M* const costs = losses.data() + row;
      on_device(
          ctx, T{}, [&](auto) { cpu::sigmoid_pair_rows(dims, tile, costs); },
          [&](auto) { cuda::sigmoid_pair_rows(ctx.stream, dims, tile, costs); });
    });
    add_up<T>(ctx, pairs.rows(), losses.data(), {loss, Accumulate::overwrite});
  }
};

}  // namespace

Variable contrastive_loss(const ExecContext& ctx, const Variable& image, const Variable& text, const Variable& log_scale) {
  check_pairs(ContrastiveLoss::name, image, text, {&log_scale});
  const std::vector<int64_t> rows = rows_of_ranks(ctx, ContrastiveLoss::name, image.shape()[0]);
  const DType wide = master_of(image.dtype());
  ContrastiveLoss op{.pairs = gather_pairs(ctx, image.value, text.value, rows),
                     .log_scale = log_scale.value,
                     .own_shifts = ctx.empty({image.shape()[0], pair_shift_numbers}, wide),
                     .all_shifts = {}};
  Tensor loss = ctx.empty({}, wide);
  dispatch_compute(image.dtype(), ContrastiveLoss::name, [&](auto tag) { op.run_forward<decltype(tag)>(ctx, loss); });
  op.all_shifts = gathered(ctx, op.own_shifts, rows);
  return record(ctx, std::move(loss), {&image, &text, &log_scale}, std::move(op));
}

Variable sigmoid_pair_loss(const ExecContext& ctx, const Variable& image, const Variable& text, const Variable& log_scale,
                           const Variable& bias) {
  check_pairs(SigmoidPairLoss::name, image, text, {&log_scale, &bias});
  const std::vector<int64_t> rows = rows_of_ranks(ctx, SigmoidPairLoss::name, image.shape()[0]);
  SigmoidPairLoss op{.pairs = gather_pairs(ctx, image.value, text.value, rows), .log_scale = log_scale.value, .bias = bias.value};
  Tensor loss = ctx.empty({}, master_of(image.dtype()));
  dispatch_compute(image.dtype(), SigmoidPairLoss::name, [&](auto tag) { op.run_forward<decltype(tag)>(ctx, loss); });
  return record(ctx, std::move(loss), {&image, &text, &log_scale, &bias}, std::move(op));
}

}  // namespace ermoe
