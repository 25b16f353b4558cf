#include "core/shape.h"

#include <algorithm>

namespace ermoe {

Shape::Shape(std::span<const int64_t> sizes) : rank_(static_cast<int>(sizes.size())) {
  check(sizes.size() <= max_rank, "[shape] rank {} is above the limit of {}", sizes.size(), max_rank);
  std::copy(sizes.begin(), sizes.end(), sizes_.begin());
  for (int64_t size : sizes) check(size >= 0, "[shape] an axis of {} in {}", size, str());
}

int64_t Shape::numel() const {
  int64_t n = 1;
  for (int64_t size : *this) n *= size;
  return n;
}

int64_t Shape::rows(int axis) const {
  const auto stop = static_cast<int>(checked(axis));
  int64_t n = 1;
  for (int i = 0; i < stop; ++i) n *= sizes_[static_cast<size_t>(i)];
  return n;
}

Shape Shape::with(int axis, int64_t size) const {
  Shape result = *this;
  result.sizes_[checked(axis)] = size;
  return result;
}

bool Shape::operator==(const Shape& other) const { return rank_ == other.rank_ && std::equal(begin(), end(), other.begin()); }

std::string Shape::str() const {
  std::string text = "(";
  for (int i = 0; i < rank_; ++i) {
    if (i > 0) text += ", ";
    text += std::to_string(sizes_[static_cast<size_t>(i)]);
  }
  return text + ")";
}

size_t Shape::checked(int axis) const {
  const int index = axis < 0 ? axis + rank_ : axis;
  check(index >= 0 && index < rank_, "[shape] axis {} of {}", axis, str());
  return static_cast<size_t>(index);
}

}  // namespace ermoe
