#include "tools/memory_advice.h"

#include <fmt/format.h>

#include <algorithm>

namespace ermoe {

int64_t images_that_fit(MeasuredImages few, MeasuredImages more, size_t room) {
  if (few.images < 1) return 0;
  double an_image = static_cast<double>(few.bytes) / static_cast<double>(few.images), beside = 0;
  if (more.images > few.images && more.bytes > few.bytes) {
    an_image = static_cast<double>(more.bytes - few.bytes) / static_cast<double>(more.images - few.images);
    beside = std::max(0.0, static_cast<double>(few.bytes) - an_image * static_cast<double>(few.images));
  }
  const double left = 0.9 * static_cast<double>(room) - beside;
  if (left < an_image) return 0;
  constexpr double most = 1 << 30;  // also where an image needs nothing
  return static_cast<int64_t>(an_image * most > left ? left / an_image : most);
}

std::string batch_advice(int64_t batch, int64_t accumulate, int64_t fitting) {
  const int64_t at_once = batch / accumulate;
  fitting = std::min(fitting, at_once / 2);  // at_once itself did not, whatever was measured
  if (fitting < 1) return "not one image fits: the model wants to be smaller, or the memory larger";
  const int64_t even = fitting >= 8 ? fitting / 8 * 8 : fitting;
  int64_t parts = accumulate;
  while (parts < batch && (batch % parts != 0 || batch / parts > fitting)) ++parts;
  return fmt::format("train.batch {} would fit, or train.accumulate {} with train.batch {}", even * accumulate, parts, batch);
}

}  // namespace ermoe
