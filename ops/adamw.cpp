#include "ops/adamw.h"

#include "core/flat.h"
#include "ops/optional_tensor.h"

namespace ermoe {
namespace {

/// Plain structs as bytes of a device.
template <typename T>
Tensor bytes_of(const ExecContext& ctx, const std::vector<T>& values) {
  const std::span bytes(reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(T));
  return Tensor::from<uint8_t>(*ctx.allocator, {static_cast<int64_t>(bytes.size())}, bytes, "optimizer");
}

StepState* pointer(const Tensor& state) {
  check(state.defined() && state.dtype() == DType::u8 && state.bytes() == sizeof(StepState), "[adamw] {} {} is no step state",
        state.defined() ? name_of(state.dtype()) : "an undefined tensor", state.shape().str());
  return reinterpret_cast<StepState*>(state.raw());
}

void average_by(const ExecContext& ctx, double decay, const StepState* state, const Tensor& x, const Tensor& average) {
  check(x.shape() == average.shape(), "[moving_average] x {} but average {}", x.shape().str(), average.shape().str());
  dispatch_float(x.dtype(), "moving_average", [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag, [&](auto) { cpu::moving_average(x.numel(), decay, state, x.data<T>(), average.data<T>()); },
        [&](auto) { cuda::moving_average(ctx.stream, x.numel(), decay, state, x.data<T>(), average.data<T>()); });
  });
}

/// *sum = Σ t².
void add_squares(const ExecContext& ctx, const Tensor& t, double* sum) {
  dispatch_compute(t.dtype(), "squared_norm", [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag, [&](auto) { cpu::squared_norm(t.numel(), t.data<T>(), sum); },
        [&](auto) {
          const auto partials = ctx.workspace->borrow<float>(norm_pieces(t.numel()));
          cuda::squared_norm(ctx.stream, t.numel(), t.data<T>(), partials.data(), sum);
        });
  });
}

template <typename T, typename To>
void direction_to(const ExecContext& ctx, const AdamRule& rule, const Tensor& state, double lr_scale, const Tensor& g, const Tensor& m,
                  const Tensor& v, const Tensor& direction) {
  const StepState* const at = pointer(state);
  T *const first = m.data<T>(), *const second = v.data<T>();
  To* const to = direction.data<To>();
  on_device(
      ctx, T{}, [&](auto) { cpu::adam_direction(rule, at, g.numel(), lr_scale, g.data<T>(), first, second, to); },
      [&](auto) {
        if (g.dtype() == DType::bf16)
          cuda::adam_direction(ctx.stream, rule, at, g.numel(), lr_scale, g.data<bf16>(), first, second, to);
        else
          cuda::adam_direction(ctx.stream, rule, at, g.numel(), lr_scale, g.data<T>(), first, second, to);
      });
}

template <typename T>
AdamwRow<T> row_of(const AdamwEntry& e) {
  for (const Tensor& t : {e.g, e.m, e.v})
    check(t.shape() == e.p.shape(), "[adamw] p {} but a gradient or a moment {}", e.p.shape().str(), t.shape().str());
  check(!e.compute.defined() || e.compute.shape() == e.p.shape(), "[adamw] p {} but a twin {}", e.p.shape().str(), e.compute.shape().str());
  return {.p = e.p.data<T>(),
          .g = e.g.data<T>(),
          .m = e.m.data<T>(),
          .v = e.v.data<T>(),
          .compute = data_or_null<bf16>(e.compute),
          .numel = e.p.numel(),
          .lr_scale = e.lr_scale,
          .decay = e.decay};
}

}  // namespace

void adamw_step(const ExecContext& ctx, AdamDims step, const Tensor& p, const Tensor& g, const Tensor& m, const Tensor& v) {
  check(g.shape() == p.shape() && m.shape() == p.shape() && v.shape() == p.shape(), "[adamw] p {} but g {}, m {}, v {}", p.shape().str(),
        g.shape().str(), m.shape().str(), v.shape().str());
  step.numel = p.numel();
  dispatch_float(p.dtype(), "adamw", [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag, [&](auto) { cpu::adamw_step(step, p.data<T>(), g.data<T>(), m.data<T>(), v.data<T>()); },
        [&](auto) { cuda::adamw_step(ctx.stream, step, p.data<T>(), g.data<T>(), m.data<T>(), v.data<T>()); });
  });
}

Tensor squared_norm(const ExecContext& ctx, const Tensor& t) {
  Tensor sum = ctx.empty({}, DType::f64, "optimizer");
  add_squares(ctx, t, sum.data<double>());
  return sum;
}

void moving_average(const ExecContext& ctx, double decay, const Tensor& x, const Tensor& average) {
  average_by(ctx, decay, nullptr, x, average);
}

void moving_average(const ExecContext& ctx, double decay, const Tensor& state, const Tensor& x, const Tensor& average) {
  average_by(ctx, decay, pointer(state), x, average);
}

Tensor make_step_state(const ExecContext& ctx, int64_t steps) { return bytes_of(ctx, std::vector{StepState{.steps = steps}}); }

StepState read_step_state(const Tensor& state) {
  StepState host;
  state.allocator().source().download(&host, pointer(state), sizeof host);
  return host;
}

const int32_t* accepted_flag(const Tensor& state) { return &pointer(state)->accepted; }

void set_learning_rate(const ExecContext& ctx, double lr, const Tensor& state) {
  on_device(
      ctx, [&] { pointer(state)->lr = lr; }, [&](auto) { cuda::set_learning_rate(ctx.stream, lr, pointer(state)); });
}

void judge_step(const ExecContext& ctx, const AdamRule& rule, double clip, std::span<const Tensor> gradients, const Tensor& faults,
                const Tensor& state) {
  const auto count = static_cast<int64_t>(gradients.size()), fault_count = faults.defined() ? faults.numel() : 0;
  const float* const flags = data_or_null<float>(faults);
  const auto squares = ctx.workspace->borrow<double>(count);
  for (int64_t i = 0; i < count; ++i) add_squares(ctx, gradients[static_cast<size_t>(i)], squares.data() + i);
  const Tensor sum = ctx.empty({1}, DType::f64, "optimizer");
  double* const square = sum.data<double>();
  on_device(
      ctx, [&] { cpu::add_up(count, squares.data(), square); }, [&](auto) { cuda::add_up(ctx.stream, count, squares.data(), square); });
  ctx.comm->all_reduce(sum, ReduceOp::sum);
  on_device(
      ctx, [&] { cpu::judge_step(rule, clip, 1, square, fault_count, flags, pointer(state)); },
      [&](auto) { cuda::judge_step(ctx.stream, rule, clip, 1, square, fault_count, flags, pointer(state)); });
}

void accept_step(const ExecContext& ctx, const AdamRule& rule, double lr, double grad_scale, const Tensor& state) {
  on_device(
      ctx, [&] { cpu::accept_step(rule, lr, grad_scale, pointer(state)); },
      [&](auto) { cuda::accept_step(ctx.stream, rule, lr, grad_scale, pointer(state)); });
}

void adam_direction(const ExecContext& ctx, const AdamRule& rule, const Tensor& state, double lr_scale, const Tensor& g, const Tensor& m,
                    const Tensor& v, const Tensor& direction) {
  check(g.numel() == direction.numel() && m.numel() == g.numel() && v.numel() == g.numel(), "[adam_direction] g {} but direction {}",
        g.shape().str(), direction.shape().str());
  if (direction.dtype() == DType::bf16) return direction_to<float, bf16>(ctx, rule, state, lr_scale, g, m, v, direction);
  dispatch_float(m.dtype(), "adam_direction", [&](auto tag) {
    using T = decltype(tag);
    direction_to<T, T>(ctx, rule, state, lr_scale, g, m, v, direction);
  });
}

AdamwTable::AdamwTable(const ExecContext& ctx, DType dtype, std::span<const AdamwEntry> entries)
    : dtype_(dtype), row_count_(static_cast<int64_t>(entries.size())) {
  std::vector<AdamwPiece> pieces;
  for (size_t i = 0; i < entries.size(); ++i)
    for (int64_t begin = 0; begin < entries[i].p.numel(); begin += adamw_piece)
      pieces.push_back({.row = static_cast<int32_t>(i), .begin = begin});
  piece_count_ = static_cast<int64_t>(pieces.size());
  pieces_ = bytes_of(ctx, pieces);
  dispatch_float(dtype, "adamw", [&](auto tag) {
    std::vector<AdamwRow<decltype(tag)>> rows;
    for (const AdamwEntry& e : entries) rows.push_back(row_of<decltype(tag)>(e));
    rows_ = bytes_of(ctx, rows);
  });
}

void AdamwTable::step(const ExecContext& ctx, const AdamRule& rule, const Tensor& state) const {
  if (piece_count_ == 0) return;
  dispatch_float(dtype_, "adamw", [&](auto tag) {
    const auto* const rows = reinterpret_cast<const AdamwRow<decltype(tag)>*>(rows_.raw());
    const auto* const pieces = reinterpret_cast<const AdamwPiece*>(pieces_.raw());
    on_device(
        ctx, tag, [&](auto) { cpu::adamw_table(rule, row_count_, rows, pointer(state)); },
        [&](auto) { cuda::adamw_table(ctx.stream, rule, rows, piece_count_, pieces, pointer(state)); });
  });
}

}  // namespace ermoe
