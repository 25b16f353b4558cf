// Sizes of launches.
#pragma once

#include <cstdint>

namespace ermoe::cuda {

/// Blocks that `work` items need where a block takes `per_block` of them.
inline unsigned blocks_for(int64_t work, int64_t per_block) { return static_cast<unsigned>((work + per_block - 1) / per_block); }

}  // namespace ermoe::cuda
