// Tensors that several ranks hold in pieces, in one file that holds them whole: each rank writes and reads its own pieces.
// The format is core/safetensors.h's, and a file does not say how many ranks wrote it.
#pragma once

#include "core/comm.h"
#include "core/safetensors.h"

#include <span>
#include <string>

namespace ermoe {

/// What one rank has of one tensor of a file.
struct SavedSlice {
  std::string name;
  Shape whole;                // of the tensor in the file
  int64_t first = 0;          // the element of it at which `part` begins, row-major
  Tensor part = {};           // of any device and shape; undefined or without elements: this rank has nothing of it
  bool writes = true;         // this rank writes it; others that hold the same do so for reading only
  DType stored = DType::f32;  // in the file that is written
};

/// How pieces come into a file: each rank writes its own wherever it finds the very file that rank 0 made (`direct`), else, and always
/// with `through_rank_0`, they travel to rank 0, at most about 64 MiB at a time.
enum class SliceRoute { direct, through_rank_0 };

/// Writes one file together; every rank calls it. Each lists the same tensors in the same order (name, whole, stored), a tensor once for
/// each of its pieces, and all pieces that are written cover every tensor exactly once: before anything is written, `Error` names the
/// tensor of which an element is missing or stands twice. When this returns, the file is whole and on the disk. Where a rank fails
/// (disk full, …), all throw the same sentence, and the file is gone. Returns the file's CRC-32, made from what was to be written.
uint32_t write_slices(const std::string& path, std::span<const SavedSlice> slices, Communicator& ranks,
                      const SafetensorsFile::Metadata& metadata = {}, SliceRoute route = SliceRoute::direct);

/// Whether a file may hold tensors that are not listed.
enum class Unlisted { refused, ignored };

/// Reads this rank's pieces, those that others write as well, converting as SafetensorsFile::load_into does. A tensor that is missing, of
/// another shape or not listed is an `InputError` that names file and tensor, before anything is read.
void read_slices(const SafetensorsFile& file, std::span<const SavedSlice> slices, Unlisted unlisted);

/// Names of the file that are not listed.
std::vector<std::string> unlisted_in(const SafetensorsFile& file, std::span<const SavedSlice> slices);

/// "a, b, c and 5 more"
std::string first_of(const std::vector<std::string>& names);

}  // namespace ermoe
