#include "core/comm_checks.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <functional>
#include <iterator>
#include <numeric>

namespace ermoe {

namespace {

/// Whether both have rows, and rows of one kind.
bool rows_alike(const Tensor& a, const Tensor& b) {
  return a.shape().rank() > 0 && a.shape().rank() == b.shape().rank() && a.dtype() == b.dtype() &&
         std::equal(a.shape().begin() + 1, a.shape().end(), b.shape().begin() + 1);
}

}  // namespace

void check_root(int root, int size) { check(root >= 0 && root < size, "[broadcast] from rank {} of {}", root, size); }

std::vector<int64_t> rows_of_ranks(const char* collective, const Tensor& one, const Tensor& many, std::span<const int64_t> rows, int rank,
                                   int size) {
  check(one.shape().rank() > 0 && many.shape().rank() > 0, "[{}] {} and {} have no rows", collective, one.shape().str(),
        many.shape().str());
  std::vector<int64_t> each(rows.begin(), rows.end());
  if (rows.empty()) each.assign(static_cast<size_t>(size), one.shape()[0]);
  int64_t sum = 0;
  for (const int64_t n : each) sum = n < 0 ? -1 : sum < 0 ? sum : sum + n;
  const bool fits = std::ssize(each) == size && many.shape() == one.shape().with(0, sum) &&
                    one.shape()[0] == each[static_cast<size_t>(rank)] && one.dtype() == many.dtype();
  check(fits, "[{}] {} {} and {} {} for rank {} of {} ranks with {} rows", collective, name_of(one.dtype()), one.shape().str(),
        name_of(many.dtype()), many.shape().str(), rank, size, fmt::join(each, " "));
  return each;
}

int64_t row_of_exchange(const Tensor& send, std::span<const int64_t> send_rows, const Tensor& recv, std::span<const int64_t> recv_rows,
                        int size) {
  check(rows_alike(send, recv), "[all_to_all] send {} {} recv {} {}", name_of(send.dtype()), send.shape().str(), name_of(recv.dtype()),
        recv.shape().str());
  const auto add_up = [&](std::span<const int64_t> rows, const Tensor& t) {
    int64_t sum = 0;
    for (const int64_t n : rows) sum = n < 0 || n > t.shape()[0] - sum ? t.shape()[0] + 1 : sum + n;
    return static_cast<int>(rows.size()) == size && sum == t.shape()[0];
  };
  check(add_up(send_rows, send), "[all_to_all] rows to {} ranks, {}, do not add up to send {}", size, fmt::join(send_rows, " "),
        send.shape().str());
  check(add_up(recv_rows, recv), "[all_to_all] rows from {} ranks, {}, do not add up to recv {}", size, fmt::join(recv_rows, " "),
        recv.shape().str());
  return std::accumulate(send.shape().begin() + 1, send.shape().end(), int64_t{1}, std::multiplies<>());
}

void check_blocks(const Tensor& send, std::span<const RowBlock> sends, const Tensor& recv, std::span<const RowBlock> receives, int rank,
                  int size) {
  check(send.defined() && recv.defined() && rows_alike(send, recv), "[exchange_blocks] send and recv are not rows alike");
  const auto check_all = [&](std::span<const RowBlock> blocks, const Tensor& t, const char* which) {
    for (const RowBlock& b : blocks) {
      const bool fits = b.rank >= 0 && b.rank < size && b.begin >= 0 && b.rows >= 0 && b.begin + b.rows <= t.shape()[0];
      check(fits, "[exchange_blocks] {} {} has no rows {} to {} for rank {} of {}", which, t.shape().str(), b.begin, b.begin + b.rows,
            b.rank, size);
    }
  };
  check_all(sends, send, "send");
  check_all(receives, recv, "recv");
  const auto own_rows = [&](std::span<const RowBlock> blocks) {
    std::vector<int64_t> rows;
    for (const RowBlock& b : blocks)
      if (b.rank == rank) rows.push_back(b.rows);
    return rows;
  };
  const std::vector<int64_t> sent = own_rows(sends), expected = own_rows(receives);
  check(sent == expected, "[exchange_blocks] rank {} sends itself blocks of {} rows and expects {}", rank, fmt::join(sent, " "),
        fmt::join(expected, " "));
}

}  // namespace ermoe
