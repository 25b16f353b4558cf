// A model's weights on disk: safetensors with timm's names, float32, experts by their global index. Read next:
// models/checkpoint_store.h.
#pragma once

#include "models/optim.h"
#include "models/upcycle.h"
#include "models/vit.h"

#include <map>
#include <string>
#include <vector>

namespace ermoe {

/// Metadata of a file: sides of the grid of patches, as in "10x12x10", which the shape of pos_embed does not tell.
inline constexpr const char* patch_grid_key = "patch_grid";

/// Writes every parameter (factors, not what is derived from them) and buffer, and beside `metadata` the grid of patches. All ranks of
/// ctx.comm call it, each writes what it has, and all throw where one fails. Returns the file's CRC-32.
uint32_t save_weights(const ExecContext& ctx, const std::string& path, Model& model, std::map<std::string, std::string> metadata = {});

/// Writes the averages of parameters, likewise.
uint32_t save_average(const ExecContext& ctx, const std::string& path, const MovingAverage& average);

/// What did not fit one to one.
struct LoadReport {
  std::vector<std::string> missing;     // in the model, not in the file: they keep their values
  std::vector<std::string> unexpected;  // in the file, not in the model
  std::vector<std::string> adapted;     // "pos_embed: 14x14 to 8x8", "head.weight: (1000, 384) but the model has (10, 384), left new"
  std::string upcycled;                 // one line about experts that a dense network made; empty: none
  /// One line for the user; empty where everything fitted.
  std::string summary() const;
};

/// Loads what a checkpoint of this very model holds, of experts those of this rank. Anything missing, unexpected or of another shape is an
/// InputError that names it. Refreshes what is derived.
void load_weights(const ExecContext& ctx, const std::string& path, Model& model);

/// What becomes of experts where the file has a dense network in their block.
struct InitOptions {
  enum class Experts { from_dense, left_new };
  Experts experts = Experts::from_dense;  // models/upcycle.h
  double noise = 0;                       // UpcycleSettings::noise, and the key that draws it
  RngKey key = {};
};

/// Starts from weights of a similar model (models/init_weights.cpp): another head is left new, learned positions are interpolated to this
/// grid, experts begin as the file's dense network, other differences of shape are an InputError that names the tensor and the setting.
/// A classifier takes the names of this engine and timm's, or the image tower of a dual encoder's file. A dual encoder takes a dual
/// encoder's file, a CLIP model's (models/clip_weights.h), or into its image tower alone a classifier's of this engine or timm's; heads are
/// then left new. On the host. Refreshes what is derived.
LoadReport init_from_weights(const ExecContext& ctx, const std::string& path, Model& model, const InitOptions& options = {});

/// (1, p + patches, D) positions to another grid of as many sides by cubic convolution (Keys 1981, a = -1/2), one side after
/// the other; the p prefix rows are copied.
Tensor resize_positions(const Tensor& positions, int64_t from_prefix, const Shape& from_grid, int64_t to_prefix, const Shape& to_grid);

/// Freezes every parameter whose name matches a pattern ("blocks.*", "*.bias"; * stands for any text, ? for one character). A
/// pattern that matches nothing is an InputError. Returns how many parameters were frozen. Refreshes what is derived.
int64_t freeze(const ExecContext& ctx, Model& model, const std::vector<std::string>& patterns);

}  // namespace ermoe
