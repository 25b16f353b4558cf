// IDX, the format of MNIST and its family: a header of big-endian numbers, then bytes. Files come in pairs,
// `train-images-idx3-ubyte[.gz]` with `train-labels-idx1-ubyte[.gz]`, and `t10k-…` to test.
// http://yann.lecun.com/exdb/mnist
#include "core/error.h"
#include "data/gzip.h"
#include "data/packed.h"
#include "data/sources.h"

#include <algorithm>

namespace ermoe {

namespace {

constexpr size_t largest_content = size_t{8} << 30;

/// The bytes of an IDX file and the sizes that its header claims, which agree.
struct Idx {
  std::vector<int64_t> sizes;
  std::string content;
};

Idx read_idx(const std::string& path, size_t rank, std::string_view what) {
  GzipReader reader(path);
  uint8_t header[4 + 4 * 3] = {};
  const size_t header_bytes = 4 + 4 * rank;
  const size_t got = reader.read(header, header_bytes);
  check_input(got == header_bytes && header[0] == 0 && header[1] == 0, "{}: not an IDX file", path);
  check_input(header[2] == 0x08, "{}: IDX elements of type {:#04x}, where only unsigned bytes (0x08) are read", path, header[2]);
  check_input(header[3] == rank, "{}: {} axes, but {} have {}", path, header[3], what, rank);
  Idx idx;
  size_t bytes = 1;
  for (size_t axis = 0; axis < rank; ++axis) {
    const uint8_t* b = header + 4 + 4 * axis;
    const size_t size = size_t{b[0]} << 24 | size_t{b[1]} << 16 | size_t{b[2]} << 8 | b[3];
    check_input(size >= 1, "{}: its header says that an axis has no elements", path);
    check_input(size <= largest_content / bytes, "{}: its header claims more than {} bytes", path, largest_content);
    bytes *= size;
    idx.sizes.push_back(static_cast<int64_t>(size));
  }
  // Grows with what is really there, so a header that lies costs nothing.
  idx.content = reader.read_rest(bytes);
  check_input(idx.content.size() == bytes, "{}: its header claims {} bytes, but {} follow", path, bytes, idx.content.size());
  return idx;
}

/// "train-images-idx3-ubyte.gz" and "emnist-digits-test-images.idx3-ubyte" are images; "" otherwise.
std::string labels_name_of(std::string_view images_name) {
  std::string name(images_name);
  const size_t images = name.find("images"), idx = name.find("idx3-ubyte");
  if (images == std::string::npos || idx == std::string::npos || name.find('/') != std::string::npos) return "";
  name.replace(idx, 4, "idx1");
  name.replace(images, 6, "labels");
  return name;
}

Part part_of_idx(std::string_view name) {
  const auto part = part_of_file(name);
  return name.starts_with("t10k") || (part && *part != Part::train) ? Part::test : Part::train;
}

/// A .gz beside the same file inflated.
bool is_compressed_twin(const FileTree& folder, size_t i) {
  const std::string& path = folder.paths()[i];
  return path.ends_with(".gz") && std::binary_search(folder.paths().begin(), folder.paths().end(), path.substr(0, path.size() - 3));
}

struct Pair {
  Idx images, labels;
  std::string name;
};

Pair read_pair(const FileTree& folder, size_t images, const std::string& labels_name) {
  const auto& paths = folder.paths();
  const std::string other = labels_name.ends_with(".gz") ? labels_name.substr(0, labels_name.size() - 3) : labels_name + ".gz";
  auto labels = std::find(paths.begin(), paths.end(), labels_name);
  if (labels == paths.end()) labels = std::find(paths.begin(), paths.end(), other);
  check_input(labels != paths.end(), "{}: its labels, {}, are not beside it", folder.name(images), labels_name);
  const std::string label_path = folder.name(static_cast<size_t>(labels - paths.begin()));
  Pair pair{read_idx(folder.name(images), 3, "images"), read_idx(label_path, 1, "labels"), folder.name(images)};
  check_input(pair.images.sizes[0] == pair.labels.sizes[0], "{}: {} labels for {} images", label_path, pair.labels.sizes[0],
              pair.images.sizes[0]);
  return pair;
}

std::vector<std::string> class_names(const std::string& folder, int32_t classes) {
  if (classes == 10 && lower(folder).find("fashion") != std::string::npos) {
    return {"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"};
  }
  std::vector<std::string> names;
  for (int32_t y = 0; y < classes; ++y) names.push_back(std::to_string(y));
  return names;
}

std::unique_ptr<ImageDataset> dataset_of(std::optional<Pair> pair, const std::vector<std::string>& names) {
  if (!pair) return nullptr;
  const auto& sizes = pair->images.sizes;
  const RecordLayout layout{sizes[1], sizes[2], 1, PixelOrder::interleaved, sizes[1] * sizes[2], 0};
  const auto* labels = reinterpret_cast<const uint8_t*>(pair->labels.content.data());
  return std::make_unique<PackedDataset>(std::move(pair->images.content), layout, std::vector<int32_t>(labels, labels + sizes[0]), names,
                                         std::vector<RecordFile>{{pair->name, sizes[0]}});
}

}  // namespace

bool has_idx(const FileTree& folder) {
  return std::any_of(folder.paths().begin(), folder.paths().end(), [](const std::string& path) { return !labels_name_of(path).empty(); });
}

DatasetSplits open_idx(const FileTree& folder) {
  std::optional<Pair> train, test;
  int32_t classes = 0;
  for (size_t i = 0; i < folder.paths().size(); ++i) {
    const std::string labels_name = labels_name_of(folder.paths()[i]);
    if (labels_name.empty() || is_compressed_twin(folder, i)) continue;
    std::optional<Pair>& pair = part_of_idx(folder.paths()[i]) == Part::train ? train : test;
    check_input(!pair, "{}: a second set of IDX images beside {}; give a folder with one of them", folder.name(i), pair ? pair->name : "");
    pair = read_pair(folder, i, labels_name);
    for (const char label : pair->labels.content) classes = std::max(classes, static_cast<int32_t>(static_cast<uint8_t>(label)) + 1);
  }
  check_input(classes >= 2, "{}: all labels are 0", folder.root());
  const std::vector<std::string> names = class_names(folder.root(), classes);
  return {dataset_of(std::move(train), names), dataset_of(std::move(test), names)};
}

}  // namespace ermoe
