// `ermoe-data align`: volumes brought to a template, with their region maps, matrices and pictures. The method is in data/align.h.
#pragma once

#include "data/align.h"

#include <functional>
#include <string>
#include <vector>

namespace ermoe {

/// What is said at the start of every run, and in the help.
inline constexpr const char* kAlignExpectations =
    "volumes are expected to be skull-stripped as the template is; no bias field is corrected";

struct AlignVolumes {
  std::vector<std::string> images;  // as `volume_files` takes them
  std::string fixed;                // the template, likewise
  std::string out;                  // folder, made where it is not there
  std::vector<std::string> labels;  // none, or as many as images, in the same order
  std::string table;                // who is how old: copied beside the results, so that they are a study; empty: none
  double spacing = 0;               // mm of what is written; 0: the template's own
  AlignOptions options;
};

/// Writes into `out`, for an image NAME.nii.gz, NAME_aligned.nii.gz on the template's grid (axes in RAS, voxels of `spacing`),
/// NAME_aligned.json with the matrix, NAME_aligned.png to look at, and for its region map LABELS_aligned.nii.gz.
/// `say` takes a line about each, `warn` sentences. Throws `InputError` that names the file where one cannot be read or aligned.
void align_volumes(const AlignVolumes& work, const std::function<void(const std::string&)>& say,
                   const std::function<void(const std::string&)>& warn);

}  // namespace ermoe
