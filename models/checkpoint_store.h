// Checkpoints as folders on a disk: how one comes to be whole, how it is found and proved whole again. Knows files, not tensors;
// what stands in them is the business of models/checkpoint.h. A folder `checkpoints/step-N` exists only when it is complete:
// it is filled as `.step-N.partial`, synced, listed in its manifest.json, and renamed. The files `latest` and `best` beside it
// hold the name of a folder. Read next: core/file_io.h, core/safetensors.h.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace ermoe {

enum class Standing { ordinary, best };

/// CRC-32 of files, by name, from whoever wrote them.
using FileChecksums = std::map<std::string, uint32_t>;

/// Fills and commits one checkpoint. Destroyed without `commit`, it removes what it wrote.
class CheckpointWriter {
 public:
  /// Makes `run_folder`/checkpoints/.step-N.partial, after removing what interrupted writers left behind (one writer at a time).
  /// Throws `InputError` where the folder cannot be made, `Error` where `step` is negative.
  CheckpointWriter(const std::string& run_folder, int64_t step);
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  /// Where to write the file `name` (no folders) of this checkpoint.
  std::string path(const std::string& name) const;
  /// Where its files lie until `commit`.
  const std::string& partial() const { return partial_; }
  /// Syncs every file, writes the manifest, renames the folder to step-N (replacing one of that step), points `latest` to it, and `best`
  /// too where it is the best so far. Then all but the `keep` newest checkpoints go, never `latest` or `best`. Files whose checksum is not
  /// among `known` are read for it.
  /// Throws `Error` (disk full, …); before the rename, all earlier checkpoints are as they were.
  void commit(Standing standing, int keep, const FileChecksums& known = {});
  /// The folder's final name.
  const std::string& folder() const { return final_; }

 private:
  std::string root_;     // run_folder/checkpoints
  std::string partial_;  // root_/.step-N.partial
  std::string final_;    // root_/step-N
  int64_t step_;
  bool committed_ = false;
};

struct CheckpointFile {
  std::string name;
  uint64_t bytes = 0;
  uint32_t crc32 = 0;
};

struct CheckpointManifest {
  int64_t step = 0;
  std::vector<CheckpointFile> files;
};

/// Reads the manifest and every file it lists. Throws `InputError` that names the first file which is missing, of another size or of
/// another checksum, the manifest itself included. Files that it does not list are ignored.
CheckpointManifest verify_checkpoint(const std::string& folder);

struct FoundCheckpoint {
  std::string folder;
  int64_t step = 0;
  std::string note;  // empty, or one sentence: why this one and not the one that `latest` names
};

/// The checkpoint `which` ("latest", "best" or a step) of a run, proved whole. `folder` is a run's folder, or with "latest" a
/// checkpoint's own; RUN/checkpoints/best and …/latest are themselves, whatever `which` is. Where the latest is missing or damaged, the
/// newest whole one is taken and `note` says so. Throws `InputError` where there is none.
FoundCheckpoint find_checkpoint(const std::string& folder, const std::string& which);

/// Steps of the checkpoints that a run holds, ascending; they may be damaged.
std::vector<int64_t> checkpoint_steps(const std::string& run_folder);

}  // namespace ermoe
