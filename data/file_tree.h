// Files by relative path, whether they lie in a folder or in an archive: what lets one piece of code understand both.
// Read next: data/sources.h.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ermoe {

/// Const members may be called from several threads at once.
class FileTree {
 public:
  virtual ~FileTree() = default;
  /// What it is, for messages: the path of the folder or the archive.
  virtual const std::string& root() const = 0;
  /// Relative paths of the regular files, '/' between parts, sorted. Names that begin with a dot are left out: they are a
  /// system's leftovers, never data.
  virtual const std::vector<std::string>& paths() const = 0;
  /// The bytes of file i. Throws `InputError` that names it where it is larger than `most` or cannot be read.
  virtual std::string read(size_t i, size_t most) const = 0;
  /// "folder/train/cat/1.jpg" or "archive.tar:train/cat/1.jpg".
  virtual std::string name(size_t i) const = 0;
};

/// Its file of that path; nothing where it has none.
std::optional<size_t> find_file(const FileTree& files, const std::string& path);

/// Lists a folder and what is below it, following links, at most 16 levels deep.
std::shared_ptr<const FileTree> open_folder(const std::filesystem::path& folder);

/// Indexes a .tar or .tar.gz.
std::shared_ptr<const FileTree> open_archive(const std::filesystem::path& archive);

/// A folder, or else an archive.
std::shared_ptr<const FileTree> open_tree(const std::filesystem::path& path);

/// True for names that end in .tar, .tar.gz or .tgz.
bool is_archive_name(std::string_view path);

/// True for the names of image files, by the extension. Formats that no decoder here reads count too, so that reading them says so.
bool is_image_name(std::string_view path);

/// The last part of a path, and its extension in lower case without the dot ("" where there is none).
std::string_view base_name(std::string_view path);
std::string extension(std::string_view path);
/// ASCII letters in lower case.
std::string lower(std::string_view text);
/// True where a part of the path begins with a dot.
bool is_hidden(std::string_view path);

}  // namespace ermoe
