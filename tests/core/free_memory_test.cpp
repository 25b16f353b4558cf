// Free memory as the kernel and control groups say it, of made-up files; and memory that lies in files.
#include "core/free_memory.h"

#include "core/error.h"
#include "core/file_memory.h"
#include "core/tensor.h"
#include "tests/scratch.h"

#include <gtest/gtest.h>

#include <fstream>

namespace ermoe::testing {
namespace {

void put(const ScratchFolder& root, const std::string& path, const std::string& text) {
  std::filesystem::create_directories(std::filesystem::path(root.file(path)).parent_path());
  std::ofstream(root.file(path)) << text;
}

TEST(FreeMemory, IsWhatTheKernelCallsAvailable) {
  const ScratchFolder root;
  put(root, "proc/meminfo", "MemTotal:       16000 kB\nMemFree:         1000 kB\nMemAvailable:    9000 kB\n");
  EXPECT_EQ(free_memory(root.path()), 9000u * 1024);
  put(root, "proc/self/cgroup", "5:memory:/none\n0::/none/either\n");
  EXPECT_EQ(free_memory(root.path()), 9000u * 1024);
  EXPECT_GT(free_memory(), 1u << 20);  // of this machine
}

TEST(FreeMemory, IsNoMoreThanAGroupOrThoseAboveItLeave) {
  const ScratchFolder root;
  put(root, "proc/meminfo", "MemAvailable:    9000 kB\n");
  put(root, "proc/self/cgroup", "0::/job/step\n");
  put(root, "sys/fs/cgroup/job/step/memory.max", "max\n");
  put(root, "sys/fs/cgroup/job/step/memory.current", "5000\n");
  EXPECT_EQ(free_memory(root.path()), 9000u * 1024);
  put(root, "sys/fs/cgroup/job/memory.max", "1000000\n");
  put(root, "sys/fs/cgroup/job/memory.current", "700000\n");
  EXPECT_EQ(free_memory(root.path()), 300000u);
  put(root, "sys/fs/cgroup/job/memory.stat", "anon 1\nactive_file 77\ninactive_file 500000\n");
  EXPECT_EQ(free_memory(root.path()), 800000u) << "cache is dropped where memory is wanted";
  put(root, "sys/fs/cgroup/job/step/memory.max", "4000\n");
  EXPECT_EQ(free_memory(root.path()), 0u) << "more is used than allowed";
}

TEST(FreeMemory, KnowsTheFirstVersionOfGroups) {
  const ScratchFolder root;
  put(root, "proc/meminfo", "MemAvailable:    9000 kB\n");
  put(root, "proc/self/cgroup", "4:memory:/outside/of/the/container\n1:cpu:/\n");
  put(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", "600000\n");
  put(root, "sys/fs/cgroup/memory/memory.usage_in_bytes", "500000\n");
  put(root, "sys/fs/cgroup/memory/memory.stat", "inactive_file 9\ntotal_inactive_file 20000\n");
  EXPECT_EQ(free_memory(root.path()), 120000u);
}

TEST(FileMemory, HoldsTensorsAndLeavesNoFile) {
  const ScratchFolder folder;
  CachingAllocator files(make_file_source(folder.path())), memory(make_host_source());
  {
    const Tensor t = Tensor::zeros(files, {1000, 1000}, DType::f32);
    EXPECT_FALSE(t.device().is_cuda());
    for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = static_cast<float>(i);
    const Tensor row = t.slice(700, 701).to(memory);
    EXPECT_EQ(row.data<float>()[5], 700005);
    EXPECT_TRUE(std::filesystem::is_empty(folder.path())) << "has a name";
  }
  EXPECT_GT(files.source().available(), 0u);
}

TEST(FileMemory, WhatTheDiskCannotHoldIsNotGiven) {
  const ScratchFolder folder;
  CachingAllocator files(make_file_source(folder.path()));
  EXPECT_EQ(files.source().allocate(files.source().available() + (size_t{1} << 30)), nullptr);
  const FileSizeLimit full(1 << 20);
  EXPECT_THROW(files.allocate(4 << 20, "test"), OutOfMemory);
  EXPECT_THROW(make_file_source(folder.file("nowhere")), InputError);
}

}  // namespace
}  // namespace ermoe::testing
