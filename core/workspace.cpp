#include "core/workspace.h"

#include <algorithm>

namespace ermoe {

std::byte* Workspace::take_bytes(size_t bytes) {
  const size_t rounded = (bytes + 255) / 256 * 256;
  const bool alone = allocator_.exact();  // every loan in a block of its own
  if (!alone && used_ == 0 && (!block_.defined() || block_.bytes() < std::max(rounded, high_water_))) {
    overflow_.clear();
    const size_t wanted = std::max({rounded, high_water_, size_t{1} << 16});
    block_ = Tensor();
    block_ = Tensor::empty(allocator_, {static_cast<int64_t>(wanted)}, DType::u8, "workspace");
  }
  const size_t begin = used_, end = used_ + rounded;
  std::byte* loan = nullptr;
  if (!alone && end <= block_.bytes()) {
    loan = block_.raw() + begin;
    if (allocator_.fill() == Fill::poison) allocator_.source().set(loan, 0xff, rounded);
  } else {
    overflow_.push_back(Tensor::empty(allocator_, {static_cast<int64_t>(alone ? bytes : rounded)}, DType::u8, "workspace"));
    loan = overflow_.back().raw();
  }
  used_ = end;  // last: a failed loan leaves the stack as it was
  high_water_ = std::max(high_water_, used_);
  return loan;
}

void Workspace::give_back(size_t mark) {
  used_ = mark;
  if (used_ == 0) overflow_.clear();
}

}  // namespace ermoe
