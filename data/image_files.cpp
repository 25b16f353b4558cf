#include "data/image_files.h"

#include "core/error.h"
#include "core/file_io.h"
#include "data/decode.h"
#include "data/file_tree.h"

namespace ermoe {

namespace {

constexpr size_t largest_image_file = size_t{256} << 20;

class ImageFiles final : public ImageDataset {
 public:
  explicit ImageFiles(std::vector<std::string> paths) : paths_(std::move(paths)) {}

  int64_t size() const override { return static_cast<int64_t>(paths_.size()); }
  const std::vector<std::string>& class_names() const override { return class_names_; }
  int32_t label(int64_t) const override { return 0; }
  std::string name(int64_t i) const override { return paths_.at(static_cast<size_t>(i)); }
  Image read(int64_t i) const override {
    const std::string bytes = read_file(name(i), largest_image_file);
    return decode_image(std::as_bytes(std::span(bytes)), name(i));
  }
  std::optional<std::string> file(int64_t i) const override { return read_file(name(i), largest_image_file); }

 private:
  std::vector<std::string> paths_;
  std::vector<std::string> class_names_ = {"image"};
};

}  // namespace

std::unique_ptr<ImageDataset> open_image_files(const std::vector<std::string>& paths) {
  std::vector<std::string> files;
  for (const std::string& path : paths) {
    std::error_code error;
    if (!std::filesystem::is_directory(path, error)) {
      files.push_back(path);
      continue;
    }
    const auto tree = open_folder(path);
    const size_t before = files.size();
    for (size_t i = 0; i < tree->paths().size(); ++i)
      if (is_image_name(tree->paths()[i])) files.push_back(tree->name(i));
    check_input(files.size() > before, "{}: a folder without an image", path);
  }
  check_input(!files.empty(), "no image is named");
  return std::make_unique<ImageFiles>(std::move(files));
}

}  // namespace ermoe
