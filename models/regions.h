// Regional experts: each scored expert has a region of the brain, a set of labels of a region map, and a token may go to the experts
// of the regions that its patch covers. Free experts are open to every token; the class token, and patches of no region, have them
// alone. Read next: ops/region_mask.h, ops/select_experts.h.
#pragma once

#include "models/config.h"
#include "ops/region_mask.h"

#include <string>
#include <vector>

namespace ermoe {

/// Labels of each expert's region, ascending; 0 is the background and in none. One label may lie in many regions.
using Regions = std::vector<std::vector<int64_t>>;

/// From "0:1,2;1:3" (expert 0 has labels 1 and 2, expert 1 has 3) or from a JSON file, whose name ends in .json:
/// {"0": [1, 2], "1": [3]}. Empty: none. Experts without labels before the last one named are empty lists. Throws InputError, which
/// does not name the key.
Regions parse_regions(const std::string& setting);

/// The same as parse_regions reads it: what a run keeps, so that it does not depend on a file.
std::string regions_text(const Regions& regions);

/// True where tokens are masked: the model has experts and moe.regions is given.
bool has_regions(const VitConfig& model);

/// Makes the mask of a batch. It holds the table on the device, so that a step uploads nothing.
class RegionMask {
 public:
  /// Throws InputError as `check_model` does. Of a model without regions: a mask that is undefined.
  RegionMask(const ExecContext& ctx, const VitConfig& model);

  /// `labels` (B, nz, ny, nx), f32 or i32, on the grid of the volumes and moved with them: (B·T, E) u8 for ForwardPass::allow and
  /// TrainStep::micro_batch; undefined where the model has no regions.
  Tensor operator()(const ExecContext& ctx, const Tensor& labels) const;
  bool wanted() const { return table_.experts > 0; }

 private:
  RegionTable table_;
  Shape sides_;
  int64_t patch_, prefix_;
  double share_;
};

}  // namespace ermoe
