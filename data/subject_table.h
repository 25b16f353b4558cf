// Who is in a study, and how old: the tables that neuro-imaging people have, joined with their volumes in a folder or an archive.
// Read next: data/nifti.h (the volumes), data/folds.h (cross-validation).
#pragma once

#include "data/dataset.h"
#include "data/file_tree.h"
#include "data/part.h"

#include <optional>
#include <string>
#include <vector>

namespace ermoe {

/// One volume of a person.
struct Subject {
  std::string id;             // as the table has it; what all volumes of one person share
  std::string path;           // of the volume, in the tree
  size_t file = 0;            // its index into the tree's paths
  double age = 0;             // years
  std::string sex, site;      // as the table has them; empty where it does not say
  std::optional<Part> split;  // nothing where the table does not say
};

struct SubjectTableOptions {
  /// CSV or TSV, a file of the tree or else of the disk. Empty: the participants.tsv of the tree that lies highest.
  std::string table = {};
  /// Where a row's volume lies: "t1_brain/{participant_id}_T1_brain.nii.gz", with any column in braces. Empty: as the column `path` says,
  /// and where there is none, as BIDS has it: sub-ID/[ses-*/]anat/sub-ID_*T1w.nii[.gz].
  std::string path_template = {};
  WarnFn warn = {};  // empty: silent
};

/// The subjects of a table, in its order. Its first line names the columns: `age` in years ("89+" is 89), one of `participant_id` and
/// `path` or both, and perhaps `sex`, `site` and `split` (train, val, test). Paths are relative to the table where it lies in the tree,
/// else, and where that fails, to the tree. Of several T1w of one subject in BIDS folders the first by name is taken.
///
/// Rows whose age is missing (n/a, NA or empty) are left out, which `warn` says once. Throws `InputError` that names the subject, the table
/// and the line for an age below 0, above 120 or no number; a volume that is not there; a subject that is in two splits (the model
/// would be tested on someone whom it knows); a volume that two rows name; a word in `split` that is no part. And for a table without an
/// age or a subject, and a template that asks for a column which is not there.
std::vector<Subject> read_subjects(const FileTree& files, const SubjectTableOptions& options = {});

}  // namespace ermoe
