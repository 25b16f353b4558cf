// Several archives named at once, as shards of one data set, and what a file tree holds in words. Only sources of data include this.
#pragma once

#include "data/sources.h"

#include <string>
#include <vector>

namespace ermoe {

/// "a.tar,shard-{000..010}.tar" as twelve paths. Throws `InputError` for braces that hold no range, and for more than 100,000 paths.
std::vector<std::string> archive_list(const std::string& list);

/// Opens each. Throws `InputError` for one that is not there or whose name is no archive's.
Trees open_shards(const std::vector<std::string>& paths);

/// Paths of the archives in a folder. Throws `InputError` for more than 100,000.
std::vector<std::string> archives_in(const FileTree& folder);

/// "3 .txt, 1 .json": what a folder or archive that is no data set holds.
std::string contents_of(const FileTree& tree);

}  // namespace ermoe
