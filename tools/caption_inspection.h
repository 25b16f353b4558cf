// Images with captions as `ermoe-data inspect` describes them. Read first: data/captions.h, tools/inspection.h.
#pragma once

#include "tools/inspection.h"

#include <optional>
#include <string>

namespace ermoe {

/// Describes images, captions and their lengths by part, the first captions, and sizes of images, of which it decodes some, or all;
/// nothing where `path` holds no captions. Throws `InputError` as `open_captions` does.
std::optional<Inspection> inspect_captions(const std::string& path, Look look, int threads, const WarnFn& note);

}  // namespace ermoe
