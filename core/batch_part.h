// How ranks share a batch. What is drawn at random for an image depends on its place in the whole batch, and a loss is weighed by the
// images that it is the mean of: so a step is the same for any number of ranks. Read next: data/sampler.h, core/context.h.
#pragma once

#include <cstdint>

namespace ermoe {

/// The images [first, first + count) of `total`. All zero: a batch that nobody shares.
struct BatchPart {
  int64_t first = 0, count = 0, total = 0;

  /// Of this part in the whole: the weight of its mean.
  double share() const { return total > 0 ? static_cast<double>(count) / static_cast<double>(total) : 1.0; }
  /// Of a tensor with these images along its first axis, or rows of them: how many elements the images before it would have.
  int64_t elements_before(int64_t numel) const { return count > 0 ? first * (numel / count) : 0; }
  bool operator==(const BatchPart&) const = default;
};

/// Of the largest part.
constexpr int64_t most_images_a_part(int64_t total, int64_t world) { return (total + world - 1) / world; }

/// The part of one rank of `world`: parts differ by one image at most, and may be empty where ranks are more than images.
constexpr BatchPart part_of_batch(int64_t total, int rank, int world) {
  const int64_t begin = total * rank / world, end = total * (rank + 1) / world;
  return {.first = begin, .count = end - begin, .total = total};
}

}  // namespace ermoe
