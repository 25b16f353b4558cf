// A study as `ermoe-data inspect` describes it: subjects with ages and volumes. Read first: data/subject_table.h, tools/inspection.h.
#pragma once

#include "tools/inspection.h"

#include <string>

namespace ermoe {

/// True for a folder or an archive with a participants.tsv, and wherever a table is named.
bool is_study(const std::string& path, const StudyPaths& paths);

/// Describes ages, parts and volumes, of which it reads some, or all. Throws `InputError` as `read_subjects` does.
Inspection inspect_study(const std::string& path, const StudyPaths& paths, Look look, int threads, const WarnFn& note);

}  // namespace ermoe
