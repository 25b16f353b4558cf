#include "core/workspace.h"

#include <algorithm>
#include <cstring>

namespace ermoe {

std::byte* Workspace::take_bytes(size_t bytes) {
  const size_t rounded = (bytes + 63) / 64 * 64;
  if (used_ == 0 && (!block_.defined() || block_.bytes() < std::max(rounded, high_water_))) {
    overflow_.clear();
    const size_t wanted = std::max({rounded, high_water_, size_t{1} << 16});
    block_ = Tensor();
    block_ = Tensor::empty(allocator_, {static_cast<int64_t>(wanted)}, DType::u8, "workspace");
  }
  const size_t begin = used_;
  used_ += rounded;
  high_water_ = std::max(high_water_, used_);
  if (used_ <= block_.bytes()) {
    std::byte* loan = block_.raw() + begin;
    if (allocator_.fill() == Fill::poison) std::memset(loan, 0xff, rounded);
    return loan;
  }
  overflow_.push_back(Tensor::empty(allocator_, {static_cast<int64_t>(rounded)}, DType::u8, "workspace"));
  return overflow_.back().raw();
}

void Workspace::give_back(size_t mark) {
  used_ = mark;
  if (used_ == 0) overflow_.clear();
}

}  // namespace ermoe
