#include "ops/exchange_rows.h"

#include "core/flat.h"

namespace ermoe {
namespace {

/// The first rows of `to` from all ranks; zeros in the others.
void exchange(Communicator& comm, const Tensor& from, const RowTravel& travel, const Tensor& to) {
  comm.exchange_blocks(from, travel.sends, to, travel.receives);
  const int64_t received = travel.received();
  if (received < to.shape()[0]) zero(to.slice(received, to.shape()[0]));
}

struct ExchangeRows {
  static constexpr const char* name = "exchange_rows";
  Communicator* comm;
  RowTravel travel;

  void backward(const ExecContext& ctx, const Tensor& dy, GradWriter& out) const {
    const GradSlot dx = out.into(0);
    if (dx.mode == Accumulate::overwrite) return exchange(*comm, dy, travel.back(), dx.dst);
    const Tensor own = ctx.empty(dx.dst.shape(), dx.dst.dtype(), "gradient");
    exchange(*comm, dy, travel.back(), own);
    convert(own, dx.dst, Accumulate::add);
  }
};

}  // namespace

Variable exchange_rows(const ExecContext& ctx, Communicator& comm, const Variable& x, const RowTravel& travel, int64_t rows) {
  check(x.shape().rank() == 2 && travel.sent() <= x.shape()[0] && travel.received() <= rows,
        "[exchange_rows] x {} for {} rows to send, and {} to receive as {}", x.shape().str(), travel.sent(), travel.received(), rows);
  Tensor y = ctx.empty({rows, x.shape()[1]}, x.dtype());
  exchange(comm, x.value, travel, y);
  return record(ctx, std::move(y), {&x}, ExchangeRows{.comm = &comm, .travel = travel});
}

}  // namespace ermoe
