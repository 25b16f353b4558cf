#include "ops/spread_mlp.h"

#include "core/flat.h"
#include "ops/grouped_mlp_products.h"

namespace ermoe {
namespace {

/// Rows that leave this rank and those that come to it: on the way to the experts, or back.
struct Rows {
  const Tensor &own, &there;  // (N, …), (R, …)
};

/// work(c) for each chunk c, when its rows of `out` have come; what it made travels `back` beside the next chunk's work.
template <typename Work>
void in_chunks(Communicator& comm, const RowTravel& travel, const Rows& out, const Rows& back, Work&& work) {
  const auto go = [&](const RowChunk& c) { comm.exchange_blocks(out.own, c.sends, out.there, c.receives); };
  const auto come = [&](const RowChunk& c) { comm.exchange_blocks(back.there, c.receives, back.own, c.sends); };
  const size_t last = travel.chunks.size() - 1;
  comm.start([&] { go(travel.chunks[0]); });
  for (size_t c = 0; c <= last; ++c) {
    comm.wait();
    if (last > 0) {
      comm.start([&] {
        if (c < last) go(travel.chunks[c + 1]);
        if (c > 0) come(travel.chunks[c - 1]);
      });
    }
    work(c);
  }
  comm.wait();
  comm.start([&] { come(travel.chunks[last]); });
  comm.wait();
  if (travel.sent < back.own.shape()[0]) zero(back.own.slice(travel.sent, back.own.shape()[0]));
}

Tensor rows_of(const Tensor& t, const RowChunk& c) { return t.slice(c.first_row, c.first_row + c.rows); }
Tensor experts_of(const Tensor& t, const RowChunk& c) {
  return t.defined() ? t.slice(c.first_expert, c.first_expert + c.experts) : Tensor();
}
GradSlot experts_of(const GradSlot& slot, const RowChunk& c) { return {experts_of(slot.dst, c), slot.mode}; }

const int32_t* starts_of(const RowTravel& travel, size_t chunk) {
  return travel.offsets.data<int32_t>() + travel.chunks[chunk].first_expert + static_cast<int64_t>(chunk);
}

struct SpreadMlp {
  static constexpr const char* name = "spread_mlp";
  Communicator* comm;
  RowTravel travel;
  GroupedMlpDims dims;
  Tensor came;    // (R, I): the rows of this rank's experts
  Tensor w1, w2;  // (El, F, I), (El, O, F)
  Tensor pre;     // (R, F): before the GELU; its gradient takes its place

  void backward(const ExecContext& ctx, const Tensor& dy, GradWriter& out) const {
    const GradSlot dx = out.wants(0) ? out.into(0) : GradSlot{};
    const Tensor dmade = ctx.empty({travel.rows, dims.down.out}, dy.dtype(), "gradient"),
                 dcame = ctx.empty({travel.rows, dims.up.in}, dy.dtype(), "gradient");
    const bool fresh = dx.dst.defined() && dx.mode == Accumulate::overwrite;
    const Tensor own = fresh ? dx.dst : ctx.empty({dy.shape()[0], dims.up.in}, dy.dtype(), "gradient");
    const GradSlot slots[] = {parameter_slot(out, 1), parameter_slot(out, 2), parameter_slot(out, 3), parameter_slot(out, 4)};
    in_chunks(*comm, travel, {dy, dmade}, {own, dcame}, [&](size_t c) { backward_chunk(ctx, c, dmade, slots, dcame); });
    if (dx.dst.defined() && !fresh) convert(own, dx.dst, Accumulate::add);
  }

  /// dcame = the gradient of the chunk's rows, and in `slots` those of its experts' parameters w1, b1, w2 and b2.
  void backward_chunk(const ExecContext& ctx, size_t chunk, const Tensor& dmade, std::span<const GradSlot, 4> slots,
                      const Tensor& dcame) const {
    const RowChunk& c = travel.chunks[chunk];
    GradSlot own[4];
    for (size_t i = 0; i < 4; ++i) own[i] = experts_of(slots[i], c);
    if (c.rows == 0) {
      for (const GradSlot& slot : own)
        if (slot.dst.defined() && slot.dst.numel() > 0 && slot.mode == Accumulate::overwrite) zero(slot.dst);
      return;
    }
    const int32_t* const starts = starts_of(travel, chunk);
    const GroupedMlpDims part = dims.part(c.rows, c.experts);
    const Tensor dpre = rows_of(pre, c);  // once the first of these has run
    grouped_mlp_backward_down(ctx, part, experts_of(w2, c), starts, dpre, rows_of(dmade, c), own[2], own[3], true);
    grouped_backward_parameters(ctx, part.up, rows_of(came, c), starts, dpre, own[0], own[1]);
    grouped_backward_input(ctx, part.up, experts_of(w1, c), starts, dpre, {rows_of(dcame, c), Accumulate::overwrite});
  }
};

}  // namespace

Variable spread_mlp(const ExecContext& ctx, Communicator& comm, const Variable& x, const MlpParameters& p, const RowTravel& travel) {
  check(p.w1.shape().rank() == 3 && !travel.chunks.empty() && travel.sent <= x.shape()[0] &&
            travel.chunks.back().first_row + travel.chunks.back().rows <= travel.rows &&
            travel.chunks.back().first_expert + travel.chunks.back().experts == p.w1.shape()[0],
        "[spread_mlp] x {} and w1 {} for {} rows to send, in {} chunks", x.shape().str(), p.w1.shape().str(), travel.sent,
        travel.chunks.size());
  const GroupedMlpDims dims = grouped_mlp_dims(SpreadMlp::name, x, p, travel.rows, p.w1.shape()[0]);
  const auto rows = [&](int64_t n, int64_t width) { return ctx.empty({n, width}, x.dtype()); };
  const Tensor came = rows(travel.rows, dims.up.in), pre = rows(travel.rows, dims.up.out), made = rows(travel.rows, dims.down.out);
  Tensor y = rows(x.shape()[0], dims.down.out);
  in_chunks(comm, travel, {x.value, came}, {y, made}, [&](size_t chunk) {
    const RowChunk& c = travel.chunks[chunk];
    if (c.rows == 0) return;
    const MlpTensors weights{experts_of(p.w1.value, c), experts_of(p.b1.value, c), experts_of(p.w2.value, c), experts_of(p.b2.value, c)};
    grouped_mlp_forward(ctx, dims.part(c.rows, c.experts), rows_of(came, c), weights, starts_of(travel, chunk), rows_of(pre, c),
                        rows_of(made, c));
  });
  return record(ctx, std::move(y), {&x, &p.w1, &p.b1, &p.w2, &p.b2},
                SpreadMlp{.comm = &comm, .travel = travel, .dims = dims, .came = came, .w1 = p.w1.value, .w2 = p.w2.value, .pre = pre});
}

}  // namespace ermoe
