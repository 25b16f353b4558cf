// Shapes, and the glossary of axes that the whole tree uses. Read next: core/tensor.h.
//
//   B  images in a micro-batch          K  experts a token
//   T  tokens an image                  C  capacity of an expert (never channels)
//   N  token rows, B*T                  R  rank of an expert's routing basis
//   D  width                            P  patch side
//   H  heads; Dh = D/H                  L  layers
//   F  hidden width of an FFN/expert    Y  classes
//   E  experts; El = experts of a rank  W  ranks (processes)
//
// Row-major, always contiguous. The gradient of `x` is `dx`. A loop index is the lower-case letter.
#pragma once

#include "core/error.h"

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

namespace ermoe {

/// Sizes of a tensor's axes, at most `max_rank`; no heap. Rank 0 is a scalar with one element.
class Shape {
 public:
  static constexpr int max_rank = 6;

  Shape() = default;
  Shape(std::initializer_list<int64_t> sizes) : Shape(std::span(sizes.begin(), sizes.size())) {}
  explicit Shape(std::span<const int64_t> sizes);

  int rank() const { return rank_; }
  /// Size of one axis; a negative axis counts from the back.
  int64_t operator[](int axis) const { return sizes_[checked(axis)]; }
  /// Number of elements.
  int64_t numel() const;
  /// Product of the axes before `axis`: the number of rows where `axis` starts a row.
  int64_t rows(int axis = -1) const;
  /// This shape with one axis replaced.
  Shape with(int axis, int64_t size) const;

  const int64_t* begin() const { return sizes_.data(); }
  const int64_t* end() const { return sizes_.data() + rank_; }
  bool operator==(const Shape& other) const;
  /// "(2, 65, 384)"
  std::string str() const;

 private:
  size_t checked(int axis) const;

  std::array<int64_t, max_rank> sizes_{};
  int rank_ = 0;
};

}  // namespace ermoe
