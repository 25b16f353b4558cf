// Host memory whose pages lie in a file: for what is larger than the machine's memory and is read a piece at a time. The system keeps in
// memory what fits. Read first: core/allocator.h.
#pragma once

#include "core/allocator.h"

#include <string>

namespace ermoe {

/// Blocks are files in `folder` that have no name, so that they are gone when the block is, or the process, however that ends. Their room
/// on the disk is taken at once: there are no blocks where it is not there. `available` is what the disk has free. Throws `InputError`
/// where no file can be made in the folder.
std::unique_ptr<MemorySource> make_file_source(const std::string& folder);

/// Whether files in the folder lie in memory themselves (tmpfs), so that they spare none.
bool lies_in_memory(const std::string& folder);

}  // namespace ermoe
