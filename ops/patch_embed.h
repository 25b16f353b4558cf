// How an image becomes tokens: it is cut into patches, and each is mapped to the width by one GEMM. As the patches do not
// overlap, this equals a convolution whose stride is its kernel size.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// Cuts images (B, C, H, W) or volumes (B, C, X, Y, Z) into patches of side P: (B, T, C·P·P[·P]). Patches follow each
/// other in the images' own axis order, and so do the elements of a patch, channels first. Sizes must be multiples of P.
Variable extract_patches(const ExecContext& ctx, const Variable& images, int64_t patch);

/// The patches of `images` times w (D, C, P, P[, P]) plus b (D, or undefined): (B, T, D). In a compute dtype.
Variable patch_embed(const ExecContext& ctx, const Variable& images, const Variable& w, const Variable& b);

}  // namespace ermoe
