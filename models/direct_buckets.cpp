#include "models/direct_buckets.h"

namespace ermoe {

std::vector<DirectBucket> direct_buckets(const ExecContext& ctx, const ParameterArena& arena) {
  const int64_t total = arena.values(Parameter::Role::direct).numel(), split = arena.direct_split(), cut = arena.direct_cut();
  std::vector<DirectBucket> buckets;
  const auto add = [&](DirectBucket::Ranks ranks, int64_t depth, int64_t begin) {
    begin = (begin + cut - 1) / cut * cut;  // a few elements of the next depth, which is complete earlier, may come along
    if (!buckets.empty()) buckets.back().end = begin;
    buckets.push_back({.ranks = ranks, .depth = depth, .begin = begin});
  };
  for (const Parameter* p : arena.parameters()) {
    if (p->role != Parameter::Role::direct) continue;
    const int64_t offset = arena.offset_of(*p);
    const auto ranks = offset < split ? DirectBucket::Ranks::all : DirectBucket::Ranks::replicas;
    if (buckets.empty() || buckets.back().ranks != ranks || buckets.back().depth != p->depth) add(ranks, p->depth, offset);
  }
  if (!buckets.empty()) buckets.back().end = total;
  std::erase_if(buckets, [](const DirectBucket& b) { return b.begin == b.end; });
  for (DirectBucket& b : buckets) {
    const Communicator& comm = b.comm(ctx);
    const int64_t part = (b.end - b.begin) / comm.size();
    b.own_begin = b.begin + part * comm.rank();
    b.own_end = b.own_begin + part;
  }
  return buckets;
}

}  // namespace ermoe
