// How an image becomes tokens: it is cut into patches, and each is mapped to the width by one GEMM: a convolution whose stride is
// its kernel size, or smaller by two margins where patches reach over their neighbours.
#pragma once

#include "autograd/tape.h"

namespace ermoe {

/// Cuts images (B, C, H, W) or volumes (B, C, X, Y, Z) into patches of side P: (B, T, C·P·P[·P]). Patches follow each
/// other in the images' own axis order, and so do the elements of a patch, channels first. Sizes must be multiples of P. With
/// `margin` M > 0 a patch also has the M elements around it, P + 2M along each side; beyond the image's edge they are 0.
Variable extract_patches(const ExecContext& ctx, const Variable& images, int64_t patch, int64_t margin = 0);

/// The patches of `images` times w (D, C, P + 2M, P + 2M[, P + 2M]), M = `margin`, plus b (D, or undefined): (B, T, D). In a
/// compute dtype.
Variable patch_embed(const ExecContext& ctx, const Variable& images, const Variable& w, const Variable& b, int64_t margin = 0);

}  // namespace ermoe
