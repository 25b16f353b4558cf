// The folder as a file tree, and helpers on names. Read data/file_tree.h first; archives are in data/sources_tar.cpp.
#include "data/file_tree.h"

#include "core/error.h"
#include "core/file_io.h"

#include <algorithm>
#include <array>

namespace ermoe {

namespace fs = std::filesystem;

namespace {

constexpr size_t deepest = 16;

class FolderTree final : public FileTree {
 public:
  explicit FolderTree(const fs::path& folder) : root_(folder.string()) {
    std::vector<fs::path> above;
    list(folder, "", above);
    std::sort(paths_.begin(), paths_.end());
  }

  const std::string& root() const override { return root_; }
  const std::vector<std::string>& paths() const override { return paths_; }
  std::string read(size_t i, size_t most) const override { return read_file(name(i), most); }
  std::string name(size_t i) const override { return (fs::path(root_) / paths_.at(i)).string(); }

 private:
  /// `above`: the real paths of the folders that this one lies in, so that a link to one of them is not followed forever.
  void list(const fs::path& folder, const std::string& relative, std::vector<fs::path>& above) {
    std::error_code error;
    const fs::path real = fs::canonical(folder, error);
    if (error || above.size() >= deepest || std::find(above.begin(), above.end(), real) != above.end()) return;
    above.push_back(real);
    fs::directory_iterator entries(folder, error);
    check_input(!error || !relative.empty(), "{}: the folder cannot be read ({})", folder.string(), error.message());
    for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
      const std::string leaf = entries->path().filename().string();
      if (leaf.starts_with('.')) continue;
      std::error_code ignored;
      if (entries->is_directory(ignored)) {
        list(entries->path(), relative + leaf + "/", above);
      } else if (entries->is_regular_file(ignored)) {
        paths_.push_back(relative + leaf);
      }
    }
    above.pop_back();
  }

  std::string root_;
  std::vector<std::string> paths_;
};

}  // namespace

std::optional<size_t> find_file(const FileTree& files, const std::string& path) {
  const auto& paths = files.paths();
  const auto at = std::lower_bound(paths.begin(), paths.end(), path);
  if (at == paths.end() || *at != path) return std::nullopt;
  return static_cast<size_t>(at - paths.begin());
}

std::shared_ptr<const FileTree> open_folder(const fs::path& folder) { return std::make_shared<FolderTree>(folder); }

std::shared_ptr<const FileTree> open_tree(const fs::path& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored) ? open_folder(path) : open_archive(path);
}

bool is_archive_name(std::string_view path) {
  const std::string name = lower(path);
  return name.ends_with(".tar") || name.ends_with(".tar.gz") || name.ends_with(".tgz");
}

bool is_image_name(std::string_view path) {
  constexpr std::array<std::string_view, 12> known = {"jpg", "jpeg", "png", "bmp",  "gif", "ppm",
                                                      "pgm", "pnm",  "psd", "webp", "tif", "tiff"};
  return std::find(known.begin(), known.end(), extension(path)) != known.end();
}

std::string_view base_name(std::string_view path) { return path.substr(path.rfind('/') + 1); }

std::string extension(std::string_view path) {
  const std::string_view leaf = base_name(path);
  const size_t dot = leaf.rfind('.');
  return dot == std::string_view::npos ? "" : lower(leaf.substr(dot + 1));
}

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return result;
}

bool is_hidden(std::string_view path) { return path.starts_with('.') || path.find("/.") != std::string_view::npos; }

}  // namespace ermoe
