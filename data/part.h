// The parts of a data set, and what names say about them. Read next: data/sources.h, data/subject_table.h.
#pragma once

#include <optional>
#include <string_view>

namespace ermoe {

enum class Part { train, validation, test };

/// "train", "val", "valid", "validation", "test", also with "ing" and in capitals; nothing else.
std::optional<Part> part_of_folder(std::string_view name);
/// The part that a file's name speaks of in one of its words: "cifar10_train.tar.gz", "val-0003.tar".
std::optional<Part> part_of_file(std::string_view path);

}  // namespace ermoe
