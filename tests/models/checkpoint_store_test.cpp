// Checkpoints on a disk that fails: cut and flipped files, a full disk, a writer killed at any moment.
#include "models/checkpoint_store.h"

#include "core/error.h"
#include "core/file_io.h"
#include "core/rng.h"
#include "tests/scratch.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>

namespace ermoe::testing {
namespace {

namespace fs = std::filesystem;

/// Content that only this step and this file have.
std::string content(int64_t step, const std::string& name, size_t size) {
  const RngKey key = RngKey{static_cast<uint64_t>(step)}.fold(name.size());
  std::string bytes(size, '\0');
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(philox(key, i).x[0]);
  return bytes;
}

class CheckpointStore : public ::testing::Test {
 protected:
  const std::vector<std::pair<std::string, size_t>> files_{
      {"model.safetensors", 30'000}, {"optimizer.safetensors", 50'000}, {"state.json", 200}};

  static void put(const std::string& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }
  static std::string get(const std::string& path) { return read_file(path, 1 << 20); }

  void save(int64_t step, Standing standing = Standing::ordinary, int keep = 100) const { save_in(run_, step, standing, keep); }
  void save_in(const std::string& run, int64_t step, Standing standing, int keep) const {
    CheckpointWriter writer(run, step);
    for (const auto& [name, size] : files_) {
      FileWriter file(writer.path(name));
      file.write(content(step, name, size));
      file.close();
    }
    writer.commit(standing, keep);
  }
  void expect_whole(const FoundCheckpoint& found) const {
    for (const auto& [name, size] : files_) EXPECT_TRUE(get(found.folder + "/" + name) == content(found.step, name, size)) << found.folder;
  }
  template <typename Fn>
  static std::string fault_of(Fn&& fn) {
    try {
      fn();
    } catch (const Error& e) {
      return e.what();
    }
    return "accepted";
  }
  std::vector<std::string> listing() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(root_)) names.push_back(entry.path().filename());
    std::ranges::sort(names);
    return names;
  }

  ScratchFolder scratch_;
  std::string run_ = scratch_.file("run"), root_ = run_ + "/checkpoints";
};

TEST_F(CheckpointStore, SavesAndFinds) {
  save(10, Standing::best);
  save(20);
  EXPECT_EQ(listing(), (std::vector<std::string>{"best", "latest", "step-10", "step-20"}));
  for (const auto& [which, step] : {std::pair{"latest", 20}, {"best", 10}, {"10", 10}, {"20", 20}}) {
    const FoundCheckpoint found = find_checkpoint(run_, which);
    EXPECT_EQ(found.step, step);
    EXPECT_EQ(found.folder, root_ + "/step-" + std::to_string(step));
    EXPECT_EQ(found.note, "");
    expect_whole(found);
  }
  EXPECT_EQ(find_checkpoint(root_ + "/step-10", "latest").step, 10);
  EXPECT_EQ(find_checkpoint(root_ + "/best", "latest").step, 10);  // as programs print it
  EXPECT_EQ(find_checkpoint(root_ + "/latest", "best").step, 20);
  const fs::path home = fs::current_path();
  fs::current_path(root_);
  EXPECT_EQ(find_checkpoint("best", "latest").step, 10);
  fs::current_path(home);
  EXPECT_EQ(verify_checkpoint(root_ + "/step-10").files.size(), files_.size());
  EXPECT_EQ(fault_of([&] { find_checkpoint(run_, "30"); }), run_ + ": holds no checkpoint of step 30");
  EXPECT_EQ(fault_of([&] { find_checkpoint(run_, "newest"); }), "'newest' is no checkpoint: \"latest\", \"best\" or a step is wanted");
  EXPECT_EQ(fault_of([&] { find_checkpoint(scratch_.path(), "latest"); }), scratch_.path() + ": holds no checkpoints");
}

TEST_F(CheckpointStore, KeepsTheNewestAndTheBest) {
  save(1, Standing::best, 2);
  for (int64_t step = 2; step <= 6; ++step) save(step, Standing::ordinary, 2);
  EXPECT_EQ(checkpoint_steps(run_), (std::vector<int64_t>{1, 5, 6}));
  save(3, Standing::ordinary, 1);  // resumed from an older step: the latest is not the newest
  EXPECT_EQ(checkpoint_steps(run_), (std::vector<int64_t>{1, 3, 6}));
  EXPECT_EQ(find_checkpoint(run_, "latest").step, 3);
}

TEST_F(CheckpointStore, ReplacesOneOfTheSameStep) {
  save(7);
  put(root_ + "/step-7/state.json", "damaged");
  save(7);
  expect_whole(find_checkpoint(run_, "7"));
  EXPECT_EQ(listing(), (std::vector<std::string>{"latest", "step-7"}));
}

TEST_F(CheckpointStore, AnUncommittedOneLeavesNothing) {
  save(1);
  {
    const CheckpointWriter writer(run_, 2);
    put(writer.path("model.safetensors"), "half");
  }
  EXPECT_EQ(listing(), (std::vector<std::string>{"latest", "step-1"}));
  fs::create_directories(root_ + "/.step-2.partial/deep");
  save(3);
  EXPECT_EQ(listing(), (std::vector<std::string>{"latest", "step-1", "step-3"}));
}

TEST_F(CheckpointStore, FilesCutAnywhereAreRefused) {
  save(1);
  for (const auto& entry : fs::directory_iterator(root_ + "/step-1")) {
    const std::string path = entry.path(), whole = get(path);
    for (uint64_t i = 0; i < 200; ++i) {
      put(path, whole.substr(0, uniform_int(RngKey{1}, i, whole.size())));
      const std::string fault = fault_of([&] { find_checkpoint(run_, "latest"); });
      ASSERT_NE(fault.find(path), std::string::npos) << fault;
      ASSERT_EQ(fault.find('\n'), std::string::npos) << fault;
    }
    put(path, whole + "x");
    EXPECT_NE(fault_of([&] { verify_checkpoint(root_ + "/step-1"); }).find(path), std::string::npos);
    fs::remove(path);
    EXPECT_NE(fault_of([&] { verify_checkpoint(root_ + "/step-1"); }).find(entry.path().filename()), std::string::npos);
    put(path, whole);
    expect_whole(find_checkpoint(run_, "latest"));
  }
}

TEST_F(CheckpointStore, FlippedBytesAreRefused) {
  save(1);
  for (const auto& entry : fs::directory_iterator(root_ + "/step-1")) {
    const std::string path = entry.path(), whole = get(path);
    for (uint64_t i = 0; i < 200; ++i) {
      std::string bytes = whole;
      bytes[uniform_int(RngKey{2}, i, whole.size())] ^= static_cast<char>(1 + uniform_int(RngKey{3}, i, 255));
      put(path, bytes);
      const std::string fault = fault_of([&] { verify_checkpoint(root_ + "/step-1"); });
      ASSERT_NE(fault.find(path), std::string::npos) << fault;
      ASSERT_EQ(fault.find('\n'), std::string::npos) << fault;
    }
    put(path, whole);
  }
  EXPECT_EQ(verify_checkpoint(root_ + "/step-1").step, 1);
}

TEST_F(CheckpointStore, AHostilePointerOrManifestLeadsNowhere) {
  save(1);
  save(2);
  for (const char* text : {"", "../../etc", "step-", "step-99", "step-1x", "step-01", "step-99999999999999999999", "step-2\nstep-1"}) {
    put(root_ + "/latest", text);
    const FoundCheckpoint found = find_checkpoint(run_, "latest");
    EXPECT_EQ(found.step, 2);
    EXPECT_NE(found.note, "");
  }
  for (const char* text : {"", "null", "[]", "{}", R"({"crc32":1})", R"({"files":[{"name":"../../x"}]})"}) {
    put(root_ + "/step-1/manifest.json", text);
    EXPECT_NE(fault_of([&] { verify_checkpoint(root_ + "/step-1"); }).find(root_ + "/step-1/manifest.json"), std::string::npos);
  }
}

TEST_F(CheckpointStore, FallsBackToTheNewestWholeOneAndSaysSo) {
  for (int64_t step : {1, 2, 3, 4}) save(step);
  put(root_ + "/step-4/state.json", "x");
  fs::remove(root_ + "/step-3/manifest.json");
  const FoundCheckpoint found = find_checkpoint(run_, "latest");
  EXPECT_EQ(found.step, 2);
  expect_whole(found);
  EXPECT_EQ(found.note, "the latest checkpoint cannot be used (" + root_ +
                            "/step-4/state.json: is damaged: 1 bytes where the manifest lists 200); step 2 is taken instead");
  EXPECT_THROW(find_checkpoint(run_, "4"), InputError);
  for (int64_t step : {1, 2}) fs::remove(root_ + "/step-" + std::to_string(step) + "/model.safetensors");
  EXPECT_NE(fault_of([&] { find_checkpoint(run_, "latest"); }).find(run_ + ": holds no whole checkpoint"), std::string::npos);
}

TEST_F(CheckpointStore, AFileThatCannotGrowLeavesThePreviousOne) {
  save(1);
  const FileSizeLimit limit(40'000);
  const std::string fault = fault_of([&] { save(2); });
  EXPECT_EQ(fault, root_ + "/.step-2.partial/optimizer.safetensors: cannot be written beyond 40000 bytes: File too large");
  EXPECT_EQ(listing(), (std::vector<std::string>{"latest", "step-1"}));
  expect_whole(find_checkpoint(run_, "latest"));
}

TEST_F(CheckpointStore, AFullDiskLeavesThePreviousOne) {
  const std::string disk = scratch_.file("disk");
  fs::create_directory(disk);
  if (::mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=256k") != 0) GTEST_SKIP() << "a small disk can only be mounted by root";
  save_in(disk, 1, Standing::ordinary, 100);
  std::string fault;
  int64_t saved = 1;
  for (int64_t step = 2; step < 9 && fault.empty(); ++step) {
    const std::string outcome = fault_of([&] { save_in(disk, step, Standing::ordinary, 100); });
    if (outcome == "accepted")
      saved = step;
    else
      fault = outcome;
  }
  EXPECT_NE(fault.find("No space left on device"), std::string::npos) << fault;
  EXPECT_EQ(fault.find(disk + "/checkpoints/.step-"), 0u) << fault;
  const FoundCheckpoint found = find_checkpoint(disk, "latest");
  EXPECT_EQ(found.step, saved);
  expect_whole(found);
  EXPECT_EQ(::umount(disk.c_str()), 0);
}

TEST_F(CheckpointStore, AWriterKilledAtAnyMomentLeavesAWholeOne) {
  const auto start = std::chrono::steady_clock::now();
  save(1);
  const std::chrono::duration<double, std::micro> one_save = std::chrono::steady_clock::now() - start;
  int64_t last = 1;
  // On a busy machine the first save may have been faster than those of the writers ever are: then there are more rounds.
  for (uint64_t round = 0; round < 25 || (last <= 5 && round < 1000); ++round) {
    const pid_t writer = ::fork();
    ASSERT_GE(writer, 0);
    if (writer == 0) {
      try {
        for (int64_t step = last + 1;; ++step) save(step, step % 3 == 0 ? Standing::best : Standing::ordinary, 2);
      } catch (...) {
        ::_exit(1);
      }
    }
    ::usleep(static_cast<useconds_t>(3 * one_save.count() * uniform(RngKey{4}, round)));
    ASSERT_EQ(::kill(writer, SIGKILL), 0);
    int status = 0;
    ASSERT_EQ(::waitpid(writer, &status, 0), writer);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the writer failed by itself";
    const FoundCheckpoint found = find_checkpoint(run_, "latest");
    EXPECT_EQ(found.note, "");
    EXPECT_GE(found.step, last);
    expect_whole(found);
    for (const int64_t step : checkpoint_steps(run_)) expect_whole(find_checkpoint(run_, std::to_string(step)));
    last = found.step;
  }
  EXPECT_GT(last, 5) << "the writers were killed before they wrote anything";
}

}  // namespace
}  // namespace ermoe::testing
