// Volumes that a user names: files, folders of them, archives or what lies in these. Read first: data/nifti.h, data/file_tree.h.
#pragma once

#include "data/file_tree.h"
#include "data/volume.h"

#include <memory>
#include <string>
#include <vector>

namespace ermoe {

struct VolumeFile {
  std::string name;                           // for messages: "folder/a.nii.gz", "archive.tar: t1/a.nii.gz"
  std::string stem;                           // without folders and endings: "a"
  std::shared_ptr<const FileTree> tree = {};  // that it lies in; null: it is a file of the disk, `name`
  size_t index = 0;

  /// Throws `InputError` as `read_nifti` does.
  Volume read() const;
};

/// The volumes of each path in turn: a file; those in a folder or an archive (.tar, .tar.gz), sorted; those in an archive whose paths match
/// a pattern with * and ?, as in "study.tar:t1/*_brain.nii.gz". Pairs (.hdr, .img) are for folders. Throws `InputError` where a folder, an
/// archive or a pattern has none.
std::vector<VolumeFile> volume_files(const std::vector<std::string>& paths);

/// The bytes of a file, or of one in an archive, as in "study.tar:participants.tsv". Throws `InputError` where there is no such file.
std::string read_file_or_member(const std::string& path);

}  // namespace ermoe
