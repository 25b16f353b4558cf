// What lies at a path, in words: a file of any format read here, a data set, a checkpoint or a run. Behind `ermoe-data inspect`.
#pragma once

#include "data/dataset.h"
#include "tools/image_looks.h"

#include <string>

namespace ermoe {

struct Inspection {
  std::string text;   // lines for people
  std::string fault;  // empty, or one sentence: why it is refused although it could be read this far
};

/// Where the subjects of a study and their volumes are to be found, as data.table and data.volumes say it; empty where they are not said.
struct StudyPaths {
  std::string table, volumes;
};

/// Reads what lies at `path` and describes it. Throws InputError, naming the file, where it is damaged or nothing known here.
/// `threads` decode; `note` takes sentences for the user.
Inspection inspect_path(const std::string& path, Look look, int threads, const WarnFn& note, const StudyPaths& study = {});

}  // namespace ermoe
