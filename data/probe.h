// Says what a data file is and whether it is sound, for `ermoe-data inspect` and for messages. The formats stand in one table in
// data/probe.cpp, each with a test of the first bytes and a function that reads the whole file and describes it.
#pragma once

#include <string>

namespace ermoe {

/// What `inspect_file` found in a sound file.
struct FileReport {
  std::string format;       // "PNG", "tar", "IDX", "CIFAR-10", "safetensors", "JSON", "gzip", …
  std::string description;  // one line for people: "PNG image, 640 x 480"
};

/// Recognises the file by its content and reads all of it: images are decoded, archives indexed, checksums and sizes verified. What is
/// gzip-compressed is looked at inside. Throws `InputError`, one sentence beginning with the path, where the file cannot be read,
/// is damaged, or of no format known here.
FileReport inspect_file(const std::string& path);

}  // namespace ermoe
