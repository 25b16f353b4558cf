#include "models/checkpoint_store.h"

#include "core/error.h"
#include "core/file_io.h"
#include "core/json.h"

#include <nlohmann/json.hpp>

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <optional>
#include <span>

namespace ermoe {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int format_version = 1;
constexpr const char* manifest_name = "manifest.json";

bool exists(const std::string& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}
bool is_folder(const std::string& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

std::string folder_name(int64_t step) { return fmt::format("step-{}", step); }

std::optional<int64_t> parse_step(std::string_view text) {
  int64_t step = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), step);
  if (error != std::errc{} || end != text.data() + text.size() || step < 0) return std::nullopt;
  return step;
}

/// The step in "step-120".
std::optional<int64_t> step_of_folder(std::string_view name) {
  const bool fits = name.starts_with("step-") && name.size() > 5;
  const auto step = fits ? parse_step(name.substr(5)) : std::nullopt;
  return step && folder_name(*step) == name ? step : std::nullopt;  // "step-007" is not ours
}

bool is_partial(std::string_view name) { return name.starts_with(".step-") && name.ends_with(".partial"); }

/// Names in a folder, sorted; none where it cannot be read.
std::vector<std::string> entries_of(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code ignored;
  for (fs::directory_iterator it(folder, ignored), end; !ignored && it != end; it.increment(ignored))
    names.push_back(it->path().filename());
  std::ranges::sort(names);
  return names;
}

void remove_folder(const std::string& folder) {
  std::error_code fault;
  fs::remove_all(folder, fault);
  check(!fault, "{}: cannot be removed: {}", folder, fault.message());
}

std::string hex(uint32_t value) { return fmt::format("{:08x}", value); }

uint32_t text_crc32(const std::string& text) { return crc32_of(std::as_bytes(std::span(text))); }

/// The manifest's text. It carries a checksum of itself without that entry, and this exact layout is the only one accepted, so that
/// no byte of it can change unseen.
std::string manifest_text(json manifest) {
  manifest.erase("crc32");
  manifest["crc32"] = hex(text_crc32(manifest.dump(2)));
  return manifest.dump(2) + "\n";
}

/// Syncs the files of a folder and lists them.
json list_files(const std::string& folder, const FileChecksums& known) {
  json files = json::array();
  for (const std::string& name : entries_of(folder)) {
    const std::string path = folder + "/" + name;
    sync_path(path);
    const auto told = known.find(name);
    const uint32_t crc32 = told != known.end() ? told->second : file_crc32(path);
    files.push_back({{"name", name}, {"bytes", FileReader(path).size()}, {"crc32", hex(crc32)}});
  }
  return files;
}

/// Gives `from` the name `to`. A folder that has this name already swaps places with it, so that at no moment the name is missing.
void put_in_place(const std::string& from, const std::string& to) {
  if (!exists(to)) return rename_path(from, to);
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) != 0) {
    check(errno == ENOSYS || errno == EINVAL, "{}: cannot replace {}: {}", from, to, std::strerror(errno));
    const std::string aside = (fs::path(to).parent_path() / ("." + fs::path(to).filename().string() + ".old.partial")).string();
    rename_path(to, aside);  // this file system cannot swap
    rename_path(from, to);
    return remove_folder(aside);
  }
  remove_folder(from);
}

/// The folder that `latest` or `best` names; none where there is no such file or its text is no folder's name.
std::optional<int64_t> read_pointer(const std::string& root, const char* name) {
  try {
    std::string text = read_file(root + "/" + name, 100);
    if (text.ends_with('\n')) text.pop_back();
    return step_of_folder(text);
  } catch (const InputError&) {
    return std::nullopt;
  }
}

void prune(const std::string& root, const std::string& run_folder, int keep) {
  std::vector<int64_t> steps = checkpoint_steps(run_folder);
  if (std::ssize(steps) <= keep) return;
  steps.resize(steps.size() - static_cast<size_t>(keep));
  const auto latest = read_pointer(root, "latest"), best = read_pointer(root, "best");
  for (const int64_t step : steps) {
    if (step == latest || step == best) continue;
    const std::string doomed = fmt::format("{}/.{}.partial", root, folder_name(step));
    rename_path(root + "/" + folder_name(step), doomed);  // a removal that is cut short leaves no half checkpoint
    remove_folder(doomed);
  }
}

CheckpointFile parse_file(const json& entry, const std::string& path) {
  const bool sound = entry.is_object() && entry.contains("name") && entry["name"].is_string() && entry.contains("bytes") &&
                     entry["bytes"].is_number_unsigned() && entry.contains("crc32") && entry["crc32"].is_string();
  check_input(sound, "{}: an entry of 'files' lacks its name, bytes or crc32", path);
  CheckpointFile file{entry["name"].get<std::string>(), entry["bytes"].get<uint64_t>(), 0};
  const bool plain = !file.name.empty() && file.name.find('/') == std::string::npos && file.name != "." && file.name != "..";
  check_input(plain, "{}: lists '{}', which is no plain file name", path, printable(file.name));
  const auto& crc = entry["crc32"].get_ref<const std::string&>();
  const auto [end, error] = std::from_chars(crc.data(), crc.data() + crc.size(), file.crc32, 16);
  check_input(error == std::errc{} && hex(file.crc32) == crc, "{}: '{}' is no checksum", path, printable(crc));
  return file;
}

CheckpointManifest read_manifest(const std::string& folder) {
  const std::string path = folder + "/" + manifest_name;
  check_input(is_folder(folder), "{}: is no checkpoint folder", folder);
  check_input(exists(path), "{}: has no {}, so it was never finished", folder, manifest_name);
  const std::string text = read_file(path, 1 << 20);
  const json manifest = parse_json(text, path, {.max_bytes = 1 << 20, .max_depth = 3});
  check_input(manifest.is_object() && manifest_text(manifest) == text, "{}: is damaged: its own checksum does not match", path);
  const auto has = [&](const char* key, bool (json::*is)() const noexcept) { return manifest.contains(key) && (manifest[key].*is)(); };
  check_input(has("format", &json::is_number_unsigned) && manifest["format"] == format_version,
              "{}: is of another format than version {}, which this program reads", path, format_version);
  check_input(has("step", &json::is_number_unsigned) && manifest["step"].get<uint64_t>() <= INT64_MAX, "{}: has no step", path);
  check_input(has("files", &json::is_array), "{}: has no list of files", path);
  CheckpointManifest result{manifest["step"].get<int64_t>(), {}};
  for (const json& entry : manifest["files"]) result.files.push_back(parse_file(entry, path));
  return result;
}

/// The newest whole checkpoint whose step is not `except`, newest first.
std::optional<FoundCheckpoint> newest_whole(const std::string& run_folder, std::optional<int64_t> except) {
  std::vector<int64_t> steps = checkpoint_steps(run_folder);
  std::ranges::reverse(steps);
  for (const int64_t step : steps) {
    if (step == except) continue;
    const std::string folder = run_folder + "/checkpoints/" + folder_name(step);
    try {
      verify_checkpoint(folder);
      return FoundCheckpoint{folder, step, ""};
    } catch (const InputError&) {
      continue;  // damaged too: an older one may do
    }
  }
  return std::nullopt;
}

FoundCheckpoint find_latest(const std::string& run_folder) {
  const std::string root = run_folder + "/checkpoints";
  const auto latest = read_pointer(root, "latest");
  std::string fault = fmt::format("{}/latest names no checkpoint", root);
  if (latest) {
    const std::string folder = root + "/" + folder_name(*latest);
    try {
      verify_checkpoint(folder);
      return {folder, *latest, ""};
    } catch (const InputError& e) {
      fault = e.what();
    }
  }
  auto found = newest_whole(run_folder, latest);
  check_input(found.has_value(), "{}: holds no whole checkpoint ({})", run_folder, fault);
  found->note = fmt::format("the latest checkpoint cannot be used ({}); step {} is taken instead", fault, found->step);
  return *found;
}

}  // namespace

CheckpointWriter::CheckpointWriter(const std::string& run_folder, int64_t step)
    : root_(run_folder + "/checkpoints"),
      partial_(fmt::format("{}/.{}.partial", root_, folder_name(step))),
      final_(root_ + "/" + folder_name(step)),
      step_(step) {
  check(step >= 0, "[checkpoint] step {}", step);
  std::error_code fault;
  fs::create_directories(root_, fault);
  check_input(!fault, "{}: cannot be made: {}", root_, fault.message());
  for (const std::string& name : entries_of(root_))
    if (is_partial(name)) remove_folder(root_ + "/" + name);
  fs::create_directory(partial_, fault);
  check_input(!fault, "{}: cannot be made: {}", partial_, fault.message());
}

CheckpointWriter::~CheckpointWriter() {
  std::error_code ignored;
  if (!committed_) fs::remove_all(partial_, ignored);
}

std::string CheckpointWriter::path(const std::string& name) const {
  check(!name.empty() && name.find('/') == std::string::npos && name != manifest_name, "[checkpoint] a file may not be named '{}'", name);
  return partial_ + "/" + name;
}

void CheckpointWriter::commit(Standing standing, int keep, const FileChecksums& known) {
  check(!committed_ && keep >= 1, "[checkpoint] {}", committed_ ? "committed twice" : "keeps at least one");
  const json files = list_files(partial_, known);
  FileWriter manifest(partial_ + "/" + manifest_name);
  manifest.write(manifest_text({{"format", format_version}, {"step", step_}, {"files", files}}));
  manifest.close();
  sync_path(partial_);
  put_in_place(partial_, final_);
  committed_ = true;
  sync_path(root_);
  const std::string text = folder_name(step_) + "\n";
  if (standing == Standing::best) write_file(root_ + "/best", text);
  write_file(root_ + "/latest", text);
  prune(root_, fs::path(root_).parent_path(), keep);
}

CheckpointManifest verify_checkpoint(const std::string& folder) {
  CheckpointManifest manifest = read_manifest(folder);
  for (const CheckpointFile& file : manifest.files) {
    const std::string path = folder + "/" + file.name;
    const uint64_t size = FileReader(path).size();
    check_input(size == file.bytes, "{}: is damaged: {} bytes where the manifest lists {}", path, size, file.bytes);
    check_input(file_crc32(path) == file.crc32, "{}: is damaged: its checksum does not match the manifest", path);
  }
  return manifest;
}

FoundCheckpoint find_checkpoint(const std::string& folder, const std::string& which) {
  const fs::path path = fs::absolute(folder);
  const std::string name = path.filename().string();
  if ((name == "best" || name == "latest") && fs::is_regular_file(path))
    return find_checkpoint(path.parent_path().parent_path().string(), name);
  if (which == "latest") {
    if (exists(folder + "/" + manifest_name)) return {folder, verify_checkpoint(folder).step, ""};
    check_input(is_folder(folder + "/checkpoints"), "{}: holds no checkpoints", folder);
    return find_latest(folder);
  }
  const auto step = which == "best" ? read_pointer(folder + "/checkpoints", "best") : parse_step(which);
  check_input(step || which == "best", "'{}' is no checkpoint: \"latest\", \"best\" or a step is wanted", printable(which));
  check_input(step.has_value(), "{}: names no best checkpoint", folder);
  const std::string found = folder + "/checkpoints/" + folder_name(*step);
  check_input(is_folder(found), "{}: holds no checkpoint of step {}", folder, *step);
  verify_checkpoint(found);
  return {found, *step, ""};
}

std::vector<int64_t> checkpoint_steps(const std::string& run_folder) {
  std::vector<int64_t> steps;
  for (const std::string& name : entries_of(run_folder + "/checkpoints"))
    if (const auto step = step_of_folder(name)) steps.push_back(*step);
  std::ranges::sort(steps);
  return steps;
}

}  // namespace ermoe
