// Weights of CLIP models, in either of the two namings that they are found in, into the dense towers of a dual encoder: Hugging Face's
// ("vision_model.encoder.layers.0.self_attn.q_proj.weight") and OpenCLIP's, which is OpenAI's ("visual.transformer.resblocks.0.attn.
// in_proj_weight"). Our own names: models/dual_encoder.h; our own files are read by models/weights.h.
#pragma once

#include "core/safetensors.h"
#include "models/dual_encoder.h"
#include "models/weights.h"

#include <string>

namespace ermoe {

/// Whether the file has the names of a CLIP model with two towers.
bool has_clip_names(const SafetensorsFile& file);

/// `wanted` with what the file of a CLIP model implies: every size that is 0 (heads: width / 64), pre_norm, no bias of patches, learned
/// positions, the class token's feature, and the eps of 1e-5. Sizes that are not 0 must be the file's, but for model.image_size: positions
/// are interpolated. The activation is not told by weights: OpenAI's have quick_gelu, most others gelu. A mismatch, or a file that is no
/// CLIP model, is an InputError that names it.
DualConfig clip_config(const std::string& path, const DualConfig& wanted);

/// Loads such a file, of any float type, into a dual encoder on the host. A setting that is not what the file implies, and a tensor that is
/// missing, of another shape, or that the towers have no place for, is an InputError that names it, before anything is changed. Left as
/// they are, and reported: experts, beside the file's dense networks that stand in their place there (`clip_tensor` reads them), and a
/// logit_bias that the file lacks. Reports interpolated positions. Refreshes what is derived.
LoadReport load_clip_weights(const ExecContext& ctx, const std::string& path, DualEncoder& model);

/// What such a file calls the tensor that we call "image.blocks.3.mlp.fc1.weight" or the like; empty where it has none, or has it in other
/// pieces than we do.
std::string clip_name(const SafetensorsFile& file, const std::string& own);

/// That tensor, on the host; undefined where there is none.
Tensor clip_tensor(const SafetensorsFile& file, const std::string& own, CachingAllocator& allocator, DType dtype);

}  // namespace ermoe
