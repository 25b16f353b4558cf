// An archive as a file tree. Read data/file_tree.h first; the format itself is in data/tar.h.
#include "data/file_tree.h"
#include "data/tar.h"

#include "core/error.h"

#include <algorithm>
#include <numeric>

namespace ermoe {

namespace {

class ArchiveTree final : public FileTree {
 public:
  explicit ArchiveTree(const std::string& path) : tar_(path) {
    for (size_t i = 0; i < tar_.entries().size(); ++i) {
      if (!is_hidden(tar_.entries()[i].name)) order_.push_back(i);
    }
    std::sort(order_.begin(), order_.end(), [this](size_t a, size_t b) { return tar_.entries()[a].name < tar_.entries()[b].name; });
    for (const size_t i : order_) paths_.push_back(tar_.entries()[i].name);
  }

  const std::string& root() const override { return tar_.path(); }
  const std::vector<std::string>& paths() const override { return paths_; }
  std::string read(size_t i, size_t most) const override {
    check_input(entry(i).size <= most, "{}: {} bytes are more than the {} that such a file may have", name(i), entry(i).size, most);
    return tar_.read(entry(i));
  }
  std::string name(size_t i) const override { return tar_.label(entry(i)); }

 private:
  const TarEntry& entry(size_t i) const { return tar_.entries()[order_.at(i)]; }

  TarReader tar_;
  std::vector<size_t> order_;  // sorted place → place in the archive
  std::vector<std::string> paths_;
};

}  // namespace

std::shared_ptr<const FileTree> open_archive(const std::filesystem::path& archive) {
  return std::make_shared<ArchiveTree>(archive.string());
}

}  // namespace ermoe
