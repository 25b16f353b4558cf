// How much host memory can still be had. Read next: core/allocator.h.
#pragma once

#include <cstddef>
#include <string>

namespace ermoe {

/// Bytes that this process can take without swapping: what the kernel calls available (page cache that can be dropped counts), and no more
/// than its control groups (version 2 or 1) leave it. `root`: where /proc and /sys/fs/cgroup lie, for tests.
size_t free_memory(const std::string& root = "");

}  // namespace ermoe
