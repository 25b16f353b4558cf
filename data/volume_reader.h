// A subject's volume as a model takes it: read, turned to RAS, resampled, cut out around the brain, normalised; and the map of regions
// beside it, moved the same way. Read first: data/subject_table.h, data/volume_grid.h; next: tools/volume_pipeline.h.
#pragma once

#include "data/file_tree.h"
#include "data/intensity.h"
#include "data/subject_table.h"
#include "data/volume.h"

#include <memory>
#include <optional>
#include <string>

namespace ermoe {

struct VolumeFormat {
  std::array<int64_t, 3> size{};  // nx, ny, nz of the window around the brain
  double spacing = 2;             // mm between voxels
  Normalize normalize = Normalize::mean;
  /// Where a subject's map of regions lies in the tree, with {participant_id}: on the grid of its volume. Without braces: one atlas for
  /// all, a file of the tree or else of the disk, in the space that the volumes are aligned to. Empty: none.
  std::string regions;
};

struct PreparedVolume {
  Volume intensities;
  std::vector<float> labels;         // of the same voxels; empty without regions
  std::optional<std::string> doubt;  // a sentence where it looks as if its skull were still there
};

/// Const members may be called from several threads at once.
class VolumeReader {
 public:
  /// Reads the atlas where there is one. Throws `InputError`.
  VolumeReader(std::shared_ptr<const FileTree> files, VolumeFormat format);

  /// Throws `InputError` that names the subject: its file is damaged, a series, constant, has voxels that are not finite; its map of
  /// regions is missing or on another grid.
  PreparedVolume read(const Subject& subject) const;
  /// The box around the brain in voxels of `spacing`: nx, ny, nz. Throws likewise.
  std::array<int64_t, 3> brain_size(const Subject& subject) const;

  const VolumeFormat& format() const { return format_; }
  void set_size(const std::array<int64_t, 3>& size) { format_.size = size; }

 private:
  Volume load(size_t file) const;
  std::vector<float> labels_of(const Subject& subject, const Grid& own, const Grid& window) const;

  std::shared_ptr<const FileTree> files_;
  VolumeFormat format_;
  std::optional<Volume> atlas_;
};

/// Throws `InputError` that begins with `name` unless all voxels are labels of regions: whole numbers from 0 to 32767.
void require_labels(const Volume& map, const std::string& name);

/// One volume from the disk as `VolumeReader` prepares it, without regions.
Volume prepare_volume(const Volume& volume, const VolumeFormat& format, const std::string& name);

}  // namespace ermoe
