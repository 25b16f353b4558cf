// CIFAR-10 and CIFAR-100 in their binary form: records of one or two label bytes and 3,072 pixel bytes, all red ones first.
// https://www.cs.toronto.edu/~kriz/cifar.html
#include "core/error.h"
#include "core/file_io.h"
#include "data/packed.h"
#include "data/sources.h"

#include <algorithm>
#include <array>
#include <optional>

namespace ermoe {

namespace {

constexpr int64_t pixel_bytes = 3 * 32 * 32;
constexpr size_t largest_file = size_t{4} << 30;

/// What tells the two apart: CIFAR-100 has a coarse label before the fine one, which is the class.
struct Kind {
  int64_t label_bytes;
  int32_t classes;
  std::string_view names_file;
  int64_t record_bytes() const { return label_bytes + pixel_bytes; }
};
constexpr Kind cifar10{1, 10, "batches.meta.txt"};
constexpr Kind cifar100{2, 100, "fine_label_names.txt"};

/// All files of one part, one after the other.
struct Records {
  std::string bytes;
  std::vector<int32_t> labels;
  std::vector<RecordFile> files;
};

bool first_label_fits(std::string_view bytes) {
  for (size_t at = 0; at < bytes.size(); at += static_cast<size_t>(cifar10.record_bytes())) {
    if (static_cast<uint8_t>(bytes[at]) >= cifar10.classes) return false;
  }
  return true;
}

Kind kind_of(const std::string& name, std::string_view bytes) {
  const auto size = static_cast<int64_t>(bytes.size());
  const bool ten = size % cifar10.record_bytes() == 0, hundred = size % cifar100.record_bytes() == 0;
  check_input(size > 0 && (ten || hundred), "{}: {} bytes are no whole number of CIFAR-10 records ({}) or CIFAR-100 records ({})", name,
              size, cifar10.record_bytes(), cifar100.record_bytes());
  // Some sizes are multiples of both.
  return ten && (!hundred || first_label_fits(bytes)) ? cifar10 : cifar100;
}

void append(Records& records, const Kind& kind, const std::string& name, std::string_view bytes) {
  const int64_t n = static_cast<int64_t>(bytes.size()) / kind.record_bytes();
  for (int64_t i = 0; i < n; ++i) {
    const int32_t label = static_cast<uint8_t>(bytes[static_cast<size_t>((i + 1) * kind.record_bytes() - pixel_bytes - 1)]);
    check_input(label < kind.classes, "{}: record {} has the label {}, but CIFAR-{} has classes 0 to {}", name, i, label, kind.classes,
                kind.classes - 1);
    records.labels.push_back(label);
  }
  records.bytes += bytes;
  records.files.push_back({name, n});
}

std::unique_ptr<ImageDataset> dataset_of(Records records, const Kind& kind, const std::vector<std::string>& class_names) {
  if (records.labels.empty()) return nullptr;
  const RecordLayout layout{32, 32, 3, PixelOrder::planar, kind.record_bytes(), kind.label_bytes};
  return std::make_unique<PackedDataset>(std::move(records.bytes), layout, std::move(records.labels), class_names,
                                         std::move(records.files));
}

std::vector<std::string> default_names(const Kind& kind) {
  if (kind.classes == 10) return {"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"};
  std::vector<std::string> names;
  for (int32_t y = 0; y < kind.classes; ++y) names.push_back(std::to_string(y));
  return names;
}

/// One name a line, empty lines skipped.
std::vector<std::string> names_in(std::string_view bytes) {
  std::vector<std::string> names(1);
  for (const char c : bytes) {
    if (c != '\n') {
      if (c != '\r') names.back() += c;
    } else if (!names.back().empty()) {
      names.emplace_back();
    }
  }
  if (names.back().empty()) names.pop_back();
  return names;
}

std::vector<std::string> class_names(const FileTree& tree, const Kind& kind, const WarnFn& warn) {
  for (size_t i = 0; i < tree.paths().size(); ++i) {
    if (base_name(tree.paths()[i]) != kind.names_file) continue;
    const std::vector<std::string> names = names_in(tree.read(i, size_t{1} << 20));
    if (static_cast<int32_t>(names.size()) == kind.classes) return names;
    warn_with(warn, fmt::format("{}: {} class names instead of {}; the file is ignored", tree.name(i), names.size(), kind.classes));
  }
  return default_names(kind);
}

std::optional<Part> part_of_cifar(std::string_view path) {
  const std::string_view leaf = base_name(path);
  if (leaf == "test_batch.bin" || leaf == "test.bin") return Part::test;
  if (leaf == "train.bin" || (leaf.starts_with("data_batch_") && leaf.ends_with(".bin"))) return Part::train;
  return std::nullopt;
}

}  // namespace

bool has_cifar(const FileTree& tree) {
  return std::any_of(tree.paths().begin(), tree.paths().end(), [](const std::string& path) { return part_of_cifar(path).has_value(); });
}

DatasetSplits open_cifar(const FileTree& tree, const WarnFn& warn) {
  std::optional<Kind> kind;
  Records train, test;
  for (size_t i = 0; i < tree.paths().size(); ++i) {
    const auto part = part_of_cifar(tree.paths()[i]);
    if (!part) continue;
    const std::string bytes = tree.read(i, largest_file);
    const Kind here = kind_of(tree.name(i), bytes);
    if (!kind) kind = here;
    check_input(kind->classes == here.classes, "{}: CIFAR-{} records beside others of CIFAR-{}", tree.name(i), here.classes, kind->classes);
    append(*part == Part::train ? train : test, here, tree.name(i), bytes);
  }
  const std::vector<std::string> names = class_names(tree, kind.value(), warn);
  return {dataset_of(std::move(train), *kind, names), dataset_of(std::move(test), *kind, names)};
}

DatasetSplits open_cifar_file(const std::string& path) {
  const std::string bytes = read_file(path, largest_file);
  const Kind kind = kind_of(path, bytes);
  Records records;
  append(records, kind, path, bytes);
  auto dataset = dataset_of(std::move(records), kind, default_names(kind));
  DatasetSplits splits;
  (part_of_file(path) == Part::test ? splits.test : splits.train) = std::move(dataset);
  return splits;
}

}  // namespace ermoe
