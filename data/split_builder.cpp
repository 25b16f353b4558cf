// Labelled image files to data sets, and what names say about parts and formats. See data/sources.h.
#include "core/error.h"
#include "core/file_io.h"
#include "data/decode.h"
#include "data/sources.h"

#include <algorithm>
#include <charconv>

namespace ermoe {

namespace {

// Far above any photograph; bounds what one file may cost.
constexpr size_t largest_image_file = size_t{256} << 20;
constexpr int64_t most_classes = 1'000'000;

class FileDataset final : public ImageDataset {
 public:
  FileDataset(Trees trees, std::vector<FileSample> samples, std::vector<std::string> class_names)
      : trees_(std::move(trees)), samples_(std::move(samples)), class_names_(std::move(class_names)) {}

  int64_t size() const override { return static_cast<int64_t>(samples_.size()); }
  const std::vector<std::string>& class_names() const override { return class_names_; }
  int32_t label(int64_t i) const override { return at(i).label; }
  std::string name(int64_t i) const override { return trees_[at(i).tree]->name(at(i).file); }
  Image read(int64_t i) const override {
    const std::string bytes = bytes_of(i);
    return decode_image(std::as_bytes(std::span(bytes)), name(i));
  }
  Image read_part(int64_t i, const WantedPart& part) const override {
    const std::string bytes = bytes_of(i);
    return decode_part(std::as_bytes(std::span(bytes)), name(i), part);
  }
  std::optional<std::string> file(int64_t i) const override { return bytes_of(i); }

 private:
  std::string bytes_of(int64_t i) const { return trees_[at(i).tree]->read(at(i).file, largest_image_file); }
  const FileSample& at(int64_t i) const { return samples_.at(static_cast<size_t>(i)); }

  Trees trees_;
  std::vector<FileSample> samples_;
  std::vector<std::string> class_names_;
};

/// The label as a class number, where it is a whole number in plain digits.
std::optional<int64_t> whole_number(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

std::unique_ptr<ImageDataset> file_dataset(const Trees& trees, std::vector<FileSample> samples, std::vector<std::string> class_names) {
  return std::make_unique<FileDataset>(trees, std::move(samples), std::move(class_names));
}

void SplitBuilder::add(Part part, std::string_view label, size_t tree, size_t file) {
  auto known = ids_.find(label);
  if (known == ids_.end()) known = ids_.emplace(label, static_cast<int32_t>(ids_.size())).first;
  parts_[static_cast<size_t>(part)].push_back({file, static_cast<uint32_t>(tree), known->second});
}

bool SplitBuilder::number_by_value() {
  int64_t largest = 0;
  for (const auto& [text, id] : ids_) {
    const auto value = whole_number(text);
    if (!value) return false;
    check_input(*value >= 0 && *value < most_classes, "{}: the label {} is no class number (0 to {})", source_, *value, most_classes - 1);
    class_of_[static_cast<size_t>(id)] = static_cast<int32_t>(*value);
    largest = std::max(largest, *value);
  }
  for (int64_t y = 0; y <= largest; ++y) class_names_.push_back(std::to_string(y));
  return true;
}

void SplitBuilder::number_labels() {
  class_of_.resize(ids_.size());
  if (kind_ == LabelKind::text && number_by_value()) return;
  for (const auto& [text, id] : ids_) {
    class_of_[static_cast<size_t>(id)] = static_cast<int32_t>(class_names_.size());
    class_names_.push_back(text);
  }
}

std::unique_ptr<ImageDataset> SplitBuilder::dataset_of(std::vector<FileSample> samples) const {
  if (samples.empty()) return nullptr;
  for (FileSample& sample : samples) sample.label = class_of_[static_cast<size_t>(sample.label)];
  return file_dataset(trees_, std::move(samples), class_names_);
}

DatasetSplits SplitBuilder::build(const WarnFn& warn) {
  check_input(!empty(), "{}: there is no labelled image in it", source_);
  number_labels();
  check_input(class_names_.size() >= 2, "{}: all its images are of one class, \"{}\"", source_, printable(class_names_.front()));
  auto& [train, validation, test] = parts_;
  if (!validation.empty() && !test.empty()) {
    warn_with(warn, fmt::format("{}: has a validation and a test part; the validation part is used, the test part left alone", source_));
  }
  std::vector<bool> trained(class_names_.size(), train.empty());
  for (const FileSample& sample : train) trained[static_cast<size_t>(class_of_[static_cast<size_t>(sample.label)])] = true;
  const auto untrained = std::find(trained.begin(), trained.end(), false);
  if (untrained != trained.end()) {
    const auto which = static_cast<size_t>(untrained - trained.begin());
    warn_with(warn, fmt::format("{}: {} of {} classes have no training image, for example \"{}\"", source_,
                                std::count(trained.begin(), trained.end(), false), trained.size(), printable(class_names_[which])));
  }
  DatasetSplits splits;
  splits.train = dataset_of(std::move(train));
  splits.test = dataset_of(std::move(validation.empty() ? test : validation));
  return splits;
}

std::optional<Part> part_of_folder(std::string_view name) {
  const std::string word = lower(name);
  if (word == "train" || word == "training") return Part::train;
  if (word == "val" || word == "valid" || word == "validation") return Part::validation;
  if (word == "test" || word == "testing") return Part::test;
  return std::nullopt;
}

std::optional<Part> part_of_file(std::string_view path) {
  const std::string_view leaf = base_name(path);
  size_t start = 0;
  while (start < leaf.size()) {
    const size_t end = std::min(leaf.find_first_of("-_. 0123456789", start), leaf.size());
    if (const auto part = part_of_folder(leaf.substr(start, end - start))) return part;
    start = end + 1;
  }
  return std::nullopt;
}

void warn_with(const WarnFn& warn, const std::string& text) {
  if (warn) warn(text);
}

}  // namespace ermoe
