#include "tools/run_folder.h"

#include "core/error.h"
#include "tools/config_io.h"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <sys/file.h>

#include <cerrno>
#include <ctime>
#include <filesystem>

namespace ermoe {
namespace {

namespace fs = std::filesystem;

void make_folder(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  check_input(!error && fs::is_directory(path, error), "{}: the folder cannot be made: {}", path.string(),
              error ? error.message() : "a file of that name is in the way");
}

/// A new folder under runs/; a second run of the same name gets "-2".
fs::path make_default_folder(const RunConfig& config) {
  make_folder("runs");
  std::tm now{};
  const std::time_t seconds = std::time(nullptr);
  ::localtime_r(&seconds, &now);
  const std::string name = config.train.name.empty() ? fmt::format("{:%Y%m%d-%H%M%S}", now) : config.train.name;
  for (int i = 1; i < 10000; ++i) {
    const fs::path path = fs::path("runs") / (i == 1 ? name : fmt::format("{}-{}", name, i));
    std::error_code error;
    if (fs::create_directory(path, error)) return path;
    check_input(!error || error == std::errc::file_exists, "{}: the folder cannot be made: {}", path.string(), error.message());
  }
  fail_input("runs/{}: there are too many runs of this name; give --out", name);
}

bool holds_a_run(const fs::path& path) {
  for (const char* name : {"config.json", "metrics.jsonl", "metrics.csv", "checkpoints"}) {
    if (fs::exists(path / name)) return true;
  }
  return false;
}

bool same_folder(const std::string& a, const std::string& b) {
  std::error_code error;
  return fs::equivalent(a, b, error) && !error;
}

/// Held as long as the descriptor is open. A file system without locks is let pass.
Descriptor lock_folder(const std::string& path) {
  Descriptor folder(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  check_input(folder.valid(), "{}: the folder cannot be opened", path);
  check_input(::flock(folder.get(), LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK, "{}: another process is running in this folder", path);
  return folder;
}

void check_name(const std::string& name) {
  check_input(name.find('/') == std::string::npos && name != "." && name != "..", "train.name: \"{}\" cannot name a folder",
              printable(name));
}

}  // namespace

std::string run_folder_of(const std::string& path) {
  fs::path clean = fs::path(path).lexically_normal();
  if (!clean.has_filename()) clean = clean.parent_path();
  if (!fs::exists(clean / "config.json") && clean.parent_path().filename() == "checkpoints") clean = clean.parent_path().parent_path();
  return clean.empty() ? "." : clean.string();
}

std::vector<std::string> models_in(const std::string& path) {
  std::vector<std::string> folds;
  for (int fold = 1;; ++fold) {
    const std::string folder = fmt::format("{}/fold-{}", path, fold);
    if (!path_exists(folder + "/checkpoints")) break;
    folds.push_back(folder);
  }
  return folds.empty() ? std::vector{path} : folds;
}

RunFolder::RunFolder(const RunConfig& config, int64_t resumed_step) {
  check_name(config.train.name);
  if (config.train.out.empty()) {
    path_ = make_default_folder(config).string();
  } else {
    path_ = config.train.out;
    make_folder(path_);
  }
  lock_ = lock_folder(path_);
  const bool resumed = !config.train.resume.empty() && same_folder(run_folder_of(config.train.resume), path_);
  check_input(resumed || !holds_a_run(path_), "{}: holds a run already; go on with it by --resume {}, or choose another --out", path_,
              path_);
  RunConfig recorded = config;
  recorded.train.out = path_;
  write_file(path_ + "/config.json", config_to_json(recorded));
  make_folder(checkpoints());
  metrics_ = MetricsLog(path_, resumed_step);
}

}  // namespace ermoe
