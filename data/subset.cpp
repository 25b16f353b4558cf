// Parts of a data set. Read data/subset.h first.
#include "data/subset.h"

#include "core/error.h"
#include "core/file_io.h"
#include "data/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace ermoe {

namespace {

class Subset final : public ImageDataset {
 public:
  Subset(std::shared_ptr<const ImageDataset> whole, std::vector<int64_t> indices)
      : whole_(std::move(whole)), indices_(std::move(indices)) {}

  int64_t size() const override { return static_cast<int64_t>(indices_.size()); }
  const std::vector<std::string>& class_names() const override { return whole_->class_names(); }
  int32_t label(int64_t i) const override { return whole_->label(at(i)); }
  Image read(int64_t i) const override { return whole_->read(at(i)); }
  Image read_part(int64_t i, const WantedPart& part) const override { return whole_->read_part(at(i), part); }
  std::optional<std::string> file(int64_t i) const override { return whole_->file(at(i)); }
  std::string name(int64_t i) const override { return whole_->name(at(i)); }

 private:
  int64_t at(int64_t i) const { return indices_.at(static_cast<size_t>(i)); }

  std::shared_ptr<const ImageDataset> whole_;
  std::vector<int64_t> indices_;
};

class Relabelled final : public ImageDataset {
 public:
  Relabelled(std::shared_ptr<const ImageDataset> whole, std::vector<std::string> names)
      : whole_(std::move(whole)), names_(std::move(names)) {
    for (const std::string& name : whole_->class_names()) {
      const auto found = std::find(names_.begin(), names_.end(), name);
      check_input(found != names_.end(), "the class \"{}\" is not among the {} known ones", printable(name), names_.size());
      class_of_.push_back(static_cast<int32_t>(found - names_.begin()));
    }
  }

  int64_t size() const override { return whole_->size(); }
  const std::vector<std::string>& class_names() const override { return names_; }
  int32_t label(int64_t i) const override { return class_of_.at(static_cast<size_t>(whole_->label(i))); }
  Image read(int64_t i) const override { return whole_->read(i); }
  Image read_part(int64_t i, const WantedPart& part) const override { return whole_->read_part(i, part); }
  std::optional<std::string> file(int64_t i) const override { return whole_->file(i); }
  std::string name(int64_t i) const override { return whole_->name(i); }

 private:
  std::shared_ptr<const ImageDataset> whole_;
  std::vector<std::string> names_;
  std::vector<int32_t> class_of_;  // of the classes of `whole_`
};

std::vector<std::vector<int64_t>> samples_by_class(const ImageDataset& dataset) {
  std::vector<std::vector<int64_t>> by_class(dataset.class_names().size());
  for (int64_t i = 0; i < dataset.size(); ++i) by_class.at(static_cast<size_t>(dataset.label(i))).push_back(i);
  return by_class;
}

}  // namespace

std::unique_ptr<ImageDataset> subset(std::shared_ptr<const ImageDataset> whole, std::vector<int64_t> indices) {
  check_input(!indices.empty(), "a part of a data set with no sample in it");
  for (const int64_t i : indices) check(i >= 0 && i < whole->size(), "[subset] sample {} of {}", i, whole->size());
  return std::make_unique<Subset>(std::move(whole), std::move(indices));
}

std::unique_ptr<ImageDataset> relabel(std::shared_ptr<const ImageDataset> whole, std::vector<std::string> names) {
  return std::make_unique<Relabelled>(std::move(whole), std::move(names));
}

std::vector<int64_t> balanced_indices(const ImageDataset& dataset, int64_t n) {
  std::vector<int64_t> result;
  if (n >= dataset.size()) {
    result.resize(static_cast<size_t>(dataset.size()));
    std::iota(result.begin(), result.end(), 0);
    return result;
  }
  const auto by_class = samples_by_class(dataset);
  for (size_t round = 0; static_cast<int64_t>(result.size()) < n; ++round) {
    for (const auto& samples : by_class) {
      if (round < samples.size() && static_cast<int64_t>(result.size()) < n) result.push_back(samples[round]);
    }
  }
  std::sort(result.begin(), result.end());
  return result;
}

IndexSplit holdout_indices(const ImageDataset& dataset, double share, uint64_t seed) {
  check_input(share > 0 && share < 1, "holdout: {} is not a share between 0 and 1", share);
  IndexSplit split;
  const auto by_class = samples_by_class(dataset);
  for (size_t y = 0; y < by_class.size(); ++y) {
    const auto& samples = by_class[y];
    const auto n = static_cast<int64_t>(samples.size());
    if (n == 0) continue;
    const auto wanted = static_cast<int64_t>(std::llround(share * static_cast<double>(n)));
    const int64_t held = n < 2 ? 0 : std::clamp<int64_t>(wanted, 1, n - 1);
    const Permutation order(n, RngKey{seed}.fold(y));
    for (int64_t j = 0; j < n; ++j) {
      const bool out = order(j) < held;
      (out ? split.held_out : split.kept).push_back(samples[static_cast<size_t>(j)]);
    }
  }
  std::sort(split.kept.begin(), split.kept.end());
  std::sort(split.held_out.begin(), split.held_out.end());
  return split;
}

std::unique_ptr<ImageDataset> limit(std::unique_ptr<ImageDataset> dataset, int64_t n) {
  if (n <= 0 || n >= dataset->size()) return dataset;
  std::vector<int64_t> indices = balanced_indices(*dataset, n);
  return subset(std::move(dataset), std::move(indices));
}

}  // namespace ermoe
