// Scratch memory for kernels: one block, used like a stack. A loan ends with its scope, so borrowing costs an
// addition. Loans end in reverse order of their making; C++ scopes see to that.
#pragma once

#include "core/tensor.h"

#include <span>
#include <vector>

namespace ermoe {

class Workspace {
 public:
  explicit Workspace(CachingAllocator& allocator) : allocator_(allocator) {}

  /// Returned memory is uninitialised and lives until the loan is destroyed.
  template <typename T>
  class Loan {
   public:
    Loan(Workspace& owner, size_t count) : owner_(owner), mark_(owner.used_), span_(owner.take<T>(count)) {}
    ~Loan() { owner_.give_back(mark_); }
    Loan(const Loan&) = delete;
    Loan& operator=(const Loan&) = delete;

    T* data() const { return span_.data(); }
    std::span<T> span() const { return span_; }
    T& operator[](size_t i) const { return span_[i]; }

   private:
    Workspace& owner_;
    size_t mark_;
    std::span<T> span_;
  };

  template <typename T>
  Loan<T> borrow(int64_t count) {
    check(count >= 0 && count <= INT64_MAX / 64 / static_cast<int64_t>(sizeof(T)), "[workspace] a loan of {} elements", count);
    return Loan<T>(*this, static_cast<size_t>(count));
  }

  /// Bytes of the deepest stack of loans so far.
  size_t high_water() const { return high_water_; }

 private:
  template <typename T>
  std::span<T> take(size_t count) {
    return {reinterpret_cast<T*>(take_bytes(count * sizeof(T))), count};
  }
  std::byte* take_bytes(size_t bytes);
  void give_back(size_t mark);

  CachingAllocator& allocator_;
  Tensor block_;                  // the stack; replaced by a larger one when nothing is on loan
  std::vector<Tensor> overflow_;  // loans that did not fit, until the stack is empty again
  size_t used_ = 0;
  size_t high_water_ = 0;
};

}  // namespace ermoe
