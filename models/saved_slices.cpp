#include "models/saved_slices.h"

#include <algorithm>

namespace ermoe {
namespace {

/// `values` are those of `p`: its own, or their averages.
SavedSlice slice_of(const Parameter& p, const Tensor& values, int rank) {
  SavedSlice slice{.name = p.name, .whole = p.whole_shape(), .part = values, .writes = rank == 0};
  if (p.experts_of_all == 0) return slice;
  slice.first = p.expert_offset * (slice.whole.numel() / p.experts_of_all);
  slice.writes = p.saves;
  return slice;
}

}  // namespace

std::vector<SavedSlice> saved_slices(Model& model, int rank) {
  std::vector<SavedSlice> slices;
  const auto parameter = [&](Parameter& p) {
    if (p.role != Parameter::Role::derived) slices.push_back(slice_of(p, p.value, rank));
  };
  const auto buffer = [&](Buffer& b) {
    slices.push_back({.name = b.name, .whole = b.value.shape(), .part = b.value, .writes = rank == 0});
  };
  model.visit("", {.parameter = parameter, .buffer = buffer});
  return slices;
}

std::vector<SavedSlice> saved_slices(const MovingAverage& average, int rank) {
  std::vector<SavedSlice> slices;
  average.visit([&](const Parameter& p, const Tensor& t) { slices.push_back(slice_of(p, t, rank)); });
  for (const Buffer& b : average.statistics())
    slices.push_back({.name = b.name, .whole = b.value.shape(), .part = b.value, .writes = rank == 0});
  std::ranges::stable_sort(slices, {}, &SavedSlice::name);
  return slices;
}

std::vector<SavedSlice> saved_slices(const Optimizer& optimizer, int rank) {
  std::vector<SavedSlice> slices;
  for (const Optimizer::Slot& slot : optimizer.slots()) {
    const Parameter& p = *slot.parameter;
    SavedSlice slice = slice_of(p, {}, rank);
    slice.stored = p.value.dtype();
    slice.first += slot.first;
    slice.writes = p.role == Parameter::Role::direct || p.expert_sharded || rank == 0;  // what one rank alone steps it alone has
    for (const auto& [name, part] : {std::pair(p.name + ".m", slot.m), std::pair(p.name + ".v", slot.v)}) {
      slice.name = name;
      slice.part = part;
      slices.push_back(slice);
    }
  }
  std::ranges::stable_sort(slices, {}, &SavedSlice::name);
  return slices;
}

}  // namespace ermoe
