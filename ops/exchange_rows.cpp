#include "ops/exchange_rows.h"

#include "core/flat.h"

namespace ermoe {
namespace {

/// The first rows of `to` from all ranks; zeros in the others.
void exchange(Communicator& comm, const Tensor& from, const RowCounts& counts, const Tensor& to) {
  const int64_t received = counts.received();
  comm.all_to_all(from.slice(0, counts.sent()), counts.sends, to.slice(0, received), counts.receives);
  if (received < to.shape()[0]) zero(to.slice(received, to.shape()[0]));
}

struct ExchangeRows {
  static constexpr const char* name = "exchange_rows";
  Communicator* comm;
  RowCounts counts;

  void backward(const ExecContext& ctx, const Tensor& dy, GradWriter& out) const {
    const GradSlot dx = out.into(0);
    if (dx.mode == Accumulate::overwrite) return exchange(*comm, dy, counts.back(), dx.dst);
    const Tensor own = ctx.empty(dx.dst.shape(), dx.dst.dtype(), "gradient");
    exchange(*comm, dy, counts.back(), own);
    convert(own, dx.dst, Accumulate::add);
  }
};

}  // namespace

Variable exchange_rows(const ExecContext& ctx, Communicator& comm, const Variable& x, const RowCounts& counts, int64_t rows) {
  check(x.shape().rank() == 2 && counts.sent() <= x.shape()[0] && counts.received() <= rows,
        "[exchange_rows] x {} for {} rows to send, and {} to receive as {}", x.shape().str(), counts.sent(), counts.received(), rows);
  Tensor y = ctx.empty({rows, x.shape()[1]}, x.dtype());
  exchange(comm, x.value, counts, y);
  return record(ctx, std::move(y), {&x}, ExchangeRows{.comm = &comm, .counts = counts});
}

}  // namespace ermoe
