// Image files without classes, as one names them on a command line: what prediction reads.
#pragma once

#include "data/dataset.h"

#include <memory>
#include <string>
#include <vector>

namespace ermoe {

/// The files at `paths`, in that order; a folder stands for every image file below it, sorted. Each has the label 0. A path
/// where there is nothing is a sample like any other, whose `read` says so. Throws `InputError` for a folder without images.
std::unique_ptr<ImageDataset> open_image_files(const std::vector<std::string>& paths);

}  // namespace ermoe
