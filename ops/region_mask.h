// Which experts each token of a volume may go to, from a map of the volume's regions. Not differentiable. Read next:
// models/regions.h (where the table comes from), ops/select_experts.h (who reads the mask).
#pragma once

#include "core/context.h"

#include <vector>

namespace ermoe {

/// Regions of E experts, on a device: experts ids[starts[l]] … ids[starts[l + 1] - 1] have label l in their region.
struct RegionTable {
  int64_t experts = 0;  // E
  Tensor starts;        // (labels + 1) i32
  Tensor ids;           // (entries) i32
};

/// From the labels of each expert's region; all are 1 or more. An expert may have any number of them, and a label any number of experts.
RegionTable make_region_table(const ExecContext& ctx, const std::vector<std::vector<int64_t>>& labels_of_expert);

/// `labels` (B, s0, s1, s2), f32 (rounded) or i32, to (B·T, E) u8, T = `prefix` + patches of side `patch`, in the order of
/// ops/patch_embed.h: 1 where more than `share` of the patch's voxels have labels of the expert's region, counted together. Rows of the
/// prefix are 0, and so are those of patches without any region. Labels that the table does not know belong to nobody.
/// Throws `Error` on other shapes and dtypes, and unless share is in [0, 1).
Tensor region_mask(const ExecContext& ctx, const Tensor& labels, const RegionTable& table, int64_t patch, int64_t prefix, double share);

}  // namespace ermoe
