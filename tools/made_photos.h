// Made-up photographs in class folders, to measure loading where no large data set is at hand. Not to be learned from.
#pragma once

#include <cstdint>
#include <string>

namespace ermoe {

struct MadePhotos {
  std::string folder;
  int64_t count = 1000, classes = 10;
  int64_t width = 500, height = 375;  // the usual size of ImageNet's; every third stands upright
  int quality = 90;
};

/// Writes `folder`/train/<class>/<number>.jpg, with as much detail as photographs of about 100 KB have. Throws `InputError`
/// where the folder exists or cannot be written.
void write_made_photos(const MadePhotos& settings, int threads);

}  // namespace ermoe
