#include "tools/volume_files.h"

#include "core/error.h"
#include "core/file_io.h"
#include "core/wildcards.h"
#include "data/nifti.h"

#include <algorithm>
#include <optional>

namespace ermoe {
namespace {

constexpr size_t largest_file = size_t{1} << 30;

std::string stem_of(const std::string& path) {
  std::string stem(base_name(path));
  for (const std::string_view ending : {".gz", ".nii", ".hdr", ".img"})
    if (lower(stem).ends_with(ending)) stem.resize(stem.size() - ending.size());
  return stem;
}

/// "a.tar" and "t1/*.nii" of "a.tar:t1/*.nii"; of "a.tar" itself, and everything.
struct InArchive {
  std::string archive, pattern;
};

std::optional<InArchive> in_archive(const std::string& path) {
  if (is_archive_name(path)) return InArchive{path, "*"};
  for (size_t colon = path.find(':'); colon != std::string::npos; colon = path.find(':', colon + 1))
    if (is_archive_name(path.substr(0, colon))) return InArchive{path.substr(0, colon), path.substr(colon + 1)};
  return std::nullopt;
}

void add_folder(const std::string& path, std::vector<VolumeFile>& files) {
  const size_t before = files.size();
  const auto tree = open_folder(path);
  for (size_t i = 0; i < tree->paths().size(); ++i)
    if (is_volume_name(tree->paths()[i]) && !lower(tree->paths()[i]).ends_with(".img"))
      files.push_back({.name = tree->name(i), .stem = stem_of(tree->paths()[i])});
  check_input(files.size() > before, "{}: holds no .nii, .nii.gz or .hdr files", path);
}

void add_archive(const InArchive& wanted, std::vector<VolumeFile>& files) {
  const size_t before = files.size();
  const auto tree = open_archive(wanted.archive);
  for (size_t i = 0; i < tree->paths().size(); ++i) {
    const std::string& path = tree->paths()[i];
    const std::string name = lower(path);
    if ((name.ends_with(".nii") || name.ends_with(".nii.gz")) && matches_wildcards(wanted.pattern, path))
      files.push_back({.name = tree->name(i), .stem = stem_of(path), .tree = tree, .index = i});
  }
  check_input(files.size() > before, "{}: holds no .nii or .nii.gz files that match {}", wanted.archive, printable(wanted.pattern));
}

}  // namespace

Volume VolumeFile::read() const { return tree ? read_nifti(tree->read(index, largest_file), name) : read_nifti(name); }

std::vector<VolumeFile> volume_files(const std::vector<std::string>& paths) {
  std::vector<VolumeFile> files;
  for (const std::string& path : paths) {
    std::error_code error;
    if (std::filesystem::is_directory(path, error))
      add_folder(path, files);
    else if (const auto wanted = in_archive(path))
      add_archive(*wanted, files);
    else
      files.push_back({.name = path, .stem = stem_of(path)});
  }
  return files;
}

std::string read_file_or_member(const std::string& path) {
  const auto wanted = in_archive(path);
  if (!wanted) return read_file(path, largest_file);
  const auto tree = open_archive(wanted->archive);
  const auto found = std::ranges::find(tree->paths(), wanted->pattern);
  check_input(found != tree->paths().end(), "{}: holds no file {}", wanted->archive, printable(wanted->pattern));
  return tree->read(static_cast<size_t>(found - tree->paths().begin()), largest_file);
}

}  // namespace ermoe
