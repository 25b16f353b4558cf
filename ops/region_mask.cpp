#include "ops/region_mask.h"

#include "ops/kernels/region_mask.h"

#include <algorithm>
#include <cmath>

namespace ermoe {
namespace {

RegionMaskDims region_mask_dims(const Tensor& labels, const RegionTable& table, int64_t patch, int64_t prefix, double share) {
  check(labels.defined() && labels.shape().rank() == 4 && (labels.dtype() == DType::f32 || labels.dtype() == DType::i32),
        "[region_mask] wants labels f32 or i32 (B, s0, s1, s2) but got {} {}", name_of(labels.dtype()), labels.shape().str());
  check(table.starts.defined() && table.starts.numel() >= 2 && table.experts >= 1 && table.experts <= 8192,
        "[region_mask] a table {} of {} experts", table.starts.shape().str(), table.experts);
  check(prefix >= 0, "[region_mask] {} tokens before the patches", prefix);
  check(share >= 0 && share < 1, "[region_mask] share {} is outside [0, 1)", share);
  const Shape& s = labels.shape();
  check(patch >= 1 && s[1] % patch == 0 && s[2] % patch == 0 && s[3] % patch == 0, "[region_mask] labels {} and patches of {} a side",
        s.str(), patch);
  RegionMaskDims dims{.batch = s[0],
                      .grid = {s[1] / patch, s[2] / patch, s[3] / patch},
                      .patch = patch,
                      .prefix = prefix,
                      .experts = table.experts,
                      .labels = table.starts.numel() - 1};
  dims.least = static_cast<int64_t>(std::floor(share * static_cast<double>(dims.voxels_a_patch()))) + 1;
  return dims;
}

}  // namespace

RegionTable make_region_table(const ExecContext& ctx, const std::vector<std::vector<int64_t>>& labels_of_expert) {
  int64_t last = 0;
  for (const auto& labels : labels_of_expert)
    for (const int64_t label : labels) {
      check(label >= 1 && label < int64_t{1} << 24, "[region_mask] label {}", label);
      last = std::max(last, label);
    }
  std::vector<std::vector<int32_t>> experts_of(static_cast<size_t>(last) + 1);
  for (size_t e = 0; e < labels_of_expert.size(); ++e)
    for (const int64_t label : labels_of_expert[e]) experts_of[static_cast<size_t>(label)].push_back(static_cast<int32_t>(e));
  std::vector<int32_t> starts{0}, ids;
  for (const auto& experts : experts_of) {
    ids.insert(ids.end(), experts.begin(), experts.end());
    starts.push_back(static_cast<int32_t>(ids.size()));
  }
  if (ids.empty()) ids.push_back(0);  // so that there is an address
  const auto put = [&](const std::vector<int32_t>& values) { return Tensor::from<int32_t>(*ctx.allocator, {std::ssize(values)}, values); };
  return {.experts = std::ssize(labels_of_expert), .starts = put(starts), .ids = put(ids)};
}

Tensor region_mask(const ExecContext& ctx, const Tensor& labels, const RegionTable& table, int64_t patch, int64_t prefix, double share) {
  const RegionMaskDims dims = region_mask_dims(labels, table, patch, prefix, share);
  Tensor allow = ctx.empty({dims.batch * dims.tokens(), dims.experts}, DType::u8, "plan");
  const auto run = [&](auto tag) {
    using Label = decltype(tag);
    const auto* from = labels.data<Label>();
    const int32_t *starts = table.starts.data<int32_t>(), *ids = table.ids.data<int32_t>();
    on_device(
        ctx, [&] { cpu::region_mask(dims, from, starts, ids, allow.data<uint8_t>()); },
        [&](auto) { cuda::region_mask(ctx.stream, dims, from, starts, ids, allow.data<uint8_t>()); });
  };
  if (labels.dtype() == DType::f32)
    run(float{});
  else
    run(int32_t{});
  return allow;
}

}  // namespace ermoe
