#include "models/gathered_parameter.h"

namespace ermoe {

void GatheredParameter::share_out(const ExpertShare& share) {
  const int64_t read = reach_ == Reach::all ? share.all : share.held.count;
  share_ = share;
  // Decided alike on all ranks, some of which may own as many as they read.
  apart_ = share.own_by_replica.size() > 1 || (reach_ == Reach::all && share.held_by_expert_rank.size() > 1);
  Parameter& own = made_.parameter;
  whole_.shape = own.shape.with(0, read);
  whole_.narrow_grad = own.narrow_grad;
  own.shape = own.shape.with(0, share.own.count);
}

void GatheredParameter::visit(const std::string& prefix, const std::string& name, const Visitor& visitor) {
  visitor(join(prefix, name), parameter());
  if (apart_) visitor(join(prefix, "own_" + name), made_.parameter);
}

/// Of the rows that are read, those of the held experts.
Tensor GatheredParameter::held_rows(const Tensor& t) const {
  return reach_ == Reach::all ? t.slice(share_.held.first, share_.held.end()) : t;
}

void GatheredParameter::gather_held(const ExecContext& ctx) {
  if (!apart_) return;
  const Parameter& own = made_.parameter;
  if (!whole_.compute.defined() || whole_.compute.device() != ctx.device)
    whole_.value = whole_.compute = ctx.empty(whole_.shape, own.compute_dtype, "parameters");
  const Tensor rows = held_rows(whole_.value);
  ctx.replica_ranks->all_gather(own.shape.numel() > 0 ? own.value : rows.slice(0, 0), rows, share_.own_by_replica);
}

void GatheredParameter::gather_all(const ExecContext& ctx) {
  if (!apart_ || reach_ != Reach::all) return;
  ctx.expert_ranks->all_gather(held_rows(whole_.value), whole_.value, share_.held_by_expert_rank);
}

void GatheredParameter::end_gradient() {
  if (!apart_ || whole_.has_grad) return;
  zero(whole_.grad);
  whole_.has_grad = true;
}

void GatheredParameter::reduce_to_held(const ExecContext& ctx) {
  if (!apart_ || reach_ != Reach::all) return;
  ctx.expert_ranks->reduce_scatter(whole_.grad, held_rows(whole_.grad), share_.held_by_expert_rank);
}

void GatheredParameter::reduce_to_own(const ExecContext& ctx) {
  if (!apart_) return;
  Parameter& own = made_.parameter;
  ctx.replica_ranks->reduce_scatter(held_rows(whole_.grad), own.grad, share_.own_by_replica);
  own.has_grad = own.shape.numel() > 0;
}

}  // namespace ermoe
