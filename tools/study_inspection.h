// A study as `ermoe-data inspect` describes it: subjects with ages and volumes. Read first: data/subject_table.h, tools/inspection.h.
#pragma once

#include "tools/inspection.h"

#include <optional>
#include <string>

namespace ermoe {

/// Describes ages, parts and volumes, of which it reads some, or all; nothing where `path` is no study: a folder or an archive that has a
/// participants.tsv or of which `paths` say something. Throws `InputError` as `read_subjects` does.
std::optional<Inspection> inspect_study(const std::string& path, const StudyPaths& paths, Look look, int threads, const WarnFn& note);

}  // namespace ermoe
