// Random variation of training images, on the device where they are: a batch of decoded pixels goes in, a normalised batch comes
// out. Not differentiable, and without state: the key decides everything. Read next: ops/kernels/augment.h.
#pragma once

#include "core/context.h"

#include <vector>

namespace ermoe {

/// What is done to each image on its own. The default is nothing but normalisation.
struct AugmentSettings {
  int64_t crop_padding = 0;   // black pixels put around the image before a random crop of its old size; 0: off
  bool flip = false;          // mirror half of the images left to right
  int64_t randaugment_n = 0;  // RandAugment operations an image; 0: off
  double randaugment_m = 9;   // their strength, 0 to 10
  double erasing = 0;         // probability of erasing a random rectangle
};

/// Per channel, for pixels in [0, 1]: y = (x - mean) / deviation.
struct Normalisation {
  std::vector<double> mean, deviation;
};

/// `pixels` u8 (B, S, S, channels), 1 or 3 channels, to f32 (B, channels, S, S). In this order: RandAugment (Cubuk et al.,
/// arXiv 1909.13719), pad and crop, flip, normalisation, random erasing with zeros (Zhong et al., arXiv 1708.04896).
/// Image b of the batch that the ranks share draws from key.fold(b) alone, so its bits depend on neither the rest of the batch nor the
/// number of threads. Throws `Error` on other shapes and on settings out of range.
Tensor augment(const ExecContext& ctx, const Tensor& pixels, const AugmentSettings& settings, const Normalisation& normalisation,
               RngKey key);

/// What is done to a batch as a whole. Where mixup and cutmix are both on, one of them is drawn.
struct MixSettings {
  double mixup = 0;           // alpha of Beta(alpha, alpha); 0: off
  double cutmix = 0;          // likewise
  double probability = 1;     // of mixing this batch at all
  double cutmix_share = 0.5;  // probability of cutmix where mixup is on too
};

/// Mixes image b and target b with those of the partner B-1-b, in place. `images` (B, channels, S, S) and `targets` (B, Y), both
/// f32 or both f64. The batch has one share λ ~ Beta(α, α). Mixup (Zhang et al., arXiv 1710.09412): x = λ x + (1-λ) partner.
/// Cutmix (Yun et al., arXiv 1905.04899): a box of the partner with a share of about 1-λ of the area is pasted; the targets
/// are mixed by the box's true area. The middle image of an odd batch is its own partner and stays as it is.
/// Throws `Error` on other shapes and on settings out of range.
void mix_batch(const ExecContext& ctx, const Tensor& images, const Tensor& targets, const MixSettings& settings, RngKey key);

}  // namespace ermoe
