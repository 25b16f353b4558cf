// Parts of a data set: a few samples for a quick look or an overfitting check, or a share held out for evaluation.
#pragma once

#include "data/dataset.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace ermoe {

/// The samples of `whole` at `indices`, in that order. Throws `Error` for an index out of range, `InputError` for none.
std::unique_ptr<ImageDataset> subset(std::shared_ptr<const ImageDataset> whole, std::vector<int64_t> indices);

/// Indices of the first `n` samples such that the classes are as equal as the data set allows, ascending: the first of each
/// class, then the second of each, and so on. All of them where n is the size or more.
std::vector<int64_t> balanced_indices(const ImageDataset& dataset, int64_t n);

struct IndexSplit {
  std::vector<int64_t> kept, held_out;  // ascending, disjoint, together everything
};

/// Holds out round(share * n) samples of every class that has two or more, at least one and never all; drawn by `seed`.
IndexSplit holdout_indices(const ImageDataset& dataset, double share, uint64_t seed);

/// `whole` with its classes numbered as in `names`. Throws `InputError` for a class that is not among them.
std::unique_ptr<ImageDataset> relabel(std::shared_ptr<const ImageDataset> whole, std::vector<std::string> names);

/// At most `n` samples, classes as equal as possible; n <= 0 leaves the data set as it is.
std::unique_ptr<ImageDataset> limit(std::unique_ptr<ImageDataset> dataset, int64_t n);

}  // namespace ermoe
