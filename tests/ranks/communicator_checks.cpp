#include "tests/ranks/communicator_checks.h"

#include "core/rng.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

namespace ermoe::testing {
namespace {

constexpr DType all_dtypes[] = {DType::f32, DType::f64, DType::bf16, DType::i32, DType::i64, DType::u8};
constexpr int64_t all_sizes[] = {0, 1, 7, 1024, 100'003};

/// Value i of what rank r holds: bits that look random, as numbers of the dtype. Everyone can compute everyone's. Sums of `whole` ones
/// are exact in any order.
double value(int r, int64_t i, DType dtype, bool whole) {
  uint64_t bits = (static_cast<uint64_t>(i) * 64 + static_cast<uint64_t>(r) + 1) * 0x9e3779b97f4a7c15;
  bits ^= bits >> 31;
  bits *= 0xbf58476d1ce4e5b9;
  bits ^= bits >> 29;
  const auto small = static_cast<double>(bits % 61);  // sums of integers stay in range
  if (dtype == DType::u8) return small;
  if (whole || dtype == DType::i32 || dtype == DType::i64) return small - 30;
  return (static_cast<double>(bits >> 11) / 9007199254740992.0 - 0.5) * std::pow(2.0, static_cast<double>(bits % 9));
}

template <typename T>
T typed(double v) {
  if constexpr (std::is_same_v<T, bf16>)
    return bf16(static_cast<float>(v));
  else
    return static_cast<T>(v);
}

template <typename Fn>
void for_dtype(DType dtype, Fn&& fn) {
  switch (dtype) {
    case DType::f32: return fn(float{});
    case DType::f64: return fn(double{});
    case DType::bf16: return fn(bf16{});
    case DType::i32: return fn(int32_t{});
    case DType::i64: return fn(int64_t{});
    case DType::u8: return fn(uint8_t{});
  }
}

/// The checks on one communicator, whose members are ranks `members` of the world.
class Checks {
 public:
  Checks(Communicator& comm, std::vector<int> members, std::string name, CachingAllocator* device)
      : comm_(comm), members_(std::move(members)), name_(std::move(name)), device_(device), memory_(make_host_source(), Fill::poison) {}

  int run() {
    expect(comm_.size() == static_cast<int>(members_.size()), "size");
    for (const DType dtype : all_dtypes) {
      for (const int64_t n : all_sizes) {
        what_ = fmt::format("{} n {}", name_of(dtype), n);
        all_reduce(n, dtype);
        reduce_scatter(n, dtype);
        all_gather(n, dtype);
        broadcast(n, dtype);
        all_to_all(n, dtype);
        blocks(n, dtype);
        uneven(n, dtype);
      }
    }
    what_ = "";
    if (device_ == nullptr) not_a_number();
    refusals();
    comm_.barrier();
    return failed_;
  }

 private:
  int size() const { return comm_.size(); }
  double value_of(int member, int64_t i, DType dtype) const {
    return value(members_[static_cast<size_t>(member)], i, dtype, device_ != nullptr);
  }

  /// Memory that the communicator is asked to send and to write.
  Tensor empty(const Shape& shape, DType dtype) { return Tensor::empty(device_ != nullptr ? *device_ : memory_, shape, dtype); }
  Tensor placed(const Tensor& host) { return device_ != nullptr ? host.to(*device_) : host; }

  void expect(bool holds, const char* claim) {
    if (holds) return;
    ++failed_;
    std::printf("FAILED  %s, rank %d: %s %s\n", name_.c_str(), comm_.rank(), claim, what_.c_str());
  }

  /// Rows filled with values start, start + 1, … of a member.
  Tensor filled(const Shape& shape, DType dtype, int member, int64_t start = 0) {
    Tensor t = Tensor::empty(memory_, shape, dtype);
    for_dtype(dtype, [&]<typename T>(T) {
      for (int64_t i = 0; i < t.numel(); ++i) t.data<T>()[i] = typed<T>(value_of(member, start + i, dtype));
    });
    return t;
  }

  /// What all members' values at `start + i` come to, added up in their order as the interface promises.
  Tensor reduced(int64_t n, DType dtype, ReduceOp op, int64_t start = 0) {
    Tensor t = Tensor::empty(memory_, {n}, dtype);
    for_dtype(dtype, [&]<typename T>(T) {
      using A = Master<T>;
      for (int64_t i = 0; i < n; ++i) {
        A sum = static_cast<A>(typed<T>(value_of(0, start + i, dtype)));
        for (int m = 1; m < size(); ++m) {
          const A next = static_cast<A>(typed<T>(value_of(m, start + i, dtype)));
          sum = op == ReduceOp::max ? std::max(sum, next) : static_cast<A>(sum + next);
        }
        t.data<T>()[i] = static_cast<T>(sum);
      }
    });
    return t;
  }

  bool same(const Tensor& a, const Tensor& b) {
    if (a.numel() == 0 || a.numel() != b.numel()) return a.numel() == b.numel();
    const Tensor host = a.device().is_cuda() ? a.to(memory_) : a;
    return std::memcmp(host.raw(), b.raw(), b.bytes()) == 0;
  }

  void all_reduce(int64_t n, DType dtype) {
    for (const ReduceOp op : {ReduceOp::sum, ReduceOp::max}) {
      const Tensor t = placed(filled({n}, dtype, comm_.rank()));
      comm_.all_reduce(t, op);
      expect(same(t, reduced(n, dtype, op)), op == ReduceOp::sum ? "all_reduce sum" : "all_reduce max");
    }
  }

  void reduce_scatter(int64_t n, DType dtype) {
    const Tensor in = placed(filled({n * size()}, dtype, comm_.rank())), out = empty({n}, dtype);
    comm_.reduce_scatter(in, out);
    expect(same(out, reduced(n, dtype, ReduceOp::sum, n * comm_.rank())), "reduce_scatter");
    expect(same(in, filled({n * size()}, dtype, comm_.rank())), "reduce_scatter leaves its input alone");
  }

  void all_gather(int64_t n, DType dtype) {
    const Tensor out = empty({size() * n, 2}, dtype);
    comm_.all_gather(placed(filled({n, 2}, dtype, comm_.rank())), out);
    for (int m = 0; m < size(); ++m) expect(same(out.slice(m * n, (m + 1) * n), filled({n, 2}, dtype, m)), "all_gather");
  }

  /// Rows of another number for each rank, some without any; the ranks' own rows in the very memory of all rows, too.
  void uneven(int64_t n, DType dtype) {
    std::vector<int64_t> rows;
    int64_t total = 0, first = 0;
    for (int m = 0; m < size(); ++m) {
      if (m == comm_.rank()) first = total;
      total += rows.emplace_back(m % 3 == 1 ? 0 : n / (1 + m));
    }
    const int64_t own = rows[static_cast<size_t>(comm_.rank())];
    const auto before = [&](int m) { return std::accumulate(rows.begin(), rows.begin() + m, int64_t{0}); };
    for (const bool in_place : {false, true}) {
      const Tensor before_it = filled({total, 2}, dtype, comm_.rank()), in = placed(filled({total, 2}, dtype, comm_.rank()));
      const Tensor out = in_place ? in.slice(first, first + own) : empty({own, 2}, dtype);
      comm_.start([&] { comm_.reduce_scatter(in, out, rows); });
      comm_.wait();
      expect(same(out, reduced(2 * own, dtype, ReduceOp::sum, 2 * first)), "reduce_scatter of uneven rows");
      const bool stays =
          same(in.slice(0, first), before_it.slice(0, first)) && same(in.slice(first + own, total), before_it.slice(first + own, total));
      expect(stays, "reduce_scatter leaves the rows of others alone");
      const Tensor all = empty({total, 2}, dtype);
      const Tensor part = in_place ? all.slice(first, first + own) : empty({own, 2}, dtype);
      if (own > 0) copy(filled({own, 2}, dtype, comm_.rank()), part);
      comm_.all_gather(part, all, rows);
      for (int m = 0; m < size(); ++m) {
        const int64_t count = rows[static_cast<size_t>(m)];
        expect(same(all.slice(before(m), before(m) + count), filled({count, 2}, dtype, m)), "all_gather of uneven rows");
      }
    }
  }

  void broadcast(int64_t n, DType dtype) {
    for (int root = 0; root < size(); ++root) {
      const Tensor t = placed(filled({n}, dtype, comm_.rank()));
      comm_.broadcast(t, root);
      expect(same(t, filled({n}, dtype, root)), "broadcast");
    }
  }

  /// Uneven: `from` sends `to` about n rows, some pairs nothing, and the last rank receives nothing at all.
  int64_t rows(int from, int to, int64_t n) const {
    if (to == size() - 1 && size() > 1) return 0;
    return (from + 2 * to) % 3 == 0 ? 0 : n / (1 + (from + to) % 4);
  }

  void all_to_all(int64_t n, DType dtype) {
    std::vector<int64_t> sends, receives;
    int64_t sent = 0, received = 0;
    for (int m = 0; m < size(); ++m) {
      sent += sends.emplace_back(rows(comm_.rank(), m, n));
      received += receives.emplace_back(rows(m, comm_.rank(), n));
    }
    const Tensor recv = empty({received, 3}, dtype);
    comm_.all_to_all(placed(filled({sent, 3}, dtype, comm_.rank())), sends, recv, receives);
    int64_t at = 0;
    for (int m = 0; m < size(); ++m) {
      int64_t before = 0;
      for (int to = 0; to < comm_.rank(); ++to) before += rows(m, to, n);
      const int64_t count = receives[static_cast<size_t>(m)];
      expect(same(recv.slice(at, at + count), filled({count, 3}, dtype, m, before * 3)), "all_to_all");
      at += count;
    }
  }

  /// Two blocks to each rank; they come to lie the second ones of all ranks first, with a row between them that nobody writes.
  void blocks(int64_t n, DType dtype) {
    const auto part = [&](int from, int to, int second) { return rows(from, to, n) / (1 + second); };
    std::vector<RowBlock> sends, receives;
    int64_t sent = 0, received = 0;
    for (int m = 0; m < size(); ++m)
      for (const int second : {0, 1}) {
        sends.push_back({m, sent, part(comm_.rank(), m, second)});
        sent += sends.back().rows;
      }
    for (const int second : {1, 0})
      for (int m = 0; m < size(); ++m) {
        receives.push_back({m, received, part(m, comm_.rank(), second)});
        received += receives.back().rows + 1;
      }
    std::ranges::stable_sort(receives, {}, [](const RowBlock& b) { return -b.begin; });  // first ones first
    const Tensor recv = empty({received, 3}, dtype);
    zero(recv);
    comm_.exchange_blocks(placed(filled({sent, 3}, dtype, comm_.rank())), sends, recv, receives);
    for (const RowBlock& b : receives) {
      const bool second = &b - receives.data() >= size();
      int64_t before = 0;
      for (int to = 0; to < comm_.rank(); ++to) before += part(b.rank, to, 0) + part(b.rank, to, 1);
      if (second) before += part(b.rank, comm_.rank(), 0);
      expect(same(recv.slice(b.begin, b.begin + b.rows), filled({b.rows, 3}, dtype, b.rank, before * 3)), "exchange_blocks");
      const Tensor gap = recv.slice(b.begin + b.rows, b.begin + b.rows + 1);
      expect(same(gap, Tensor::zeros(memory_, {1, 3}, dtype)), "exchange_blocks leaves other rows alone");
    }
  }

  void not_a_number() {
    const Tensor t = filled({5000}, DType::f32, comm_.rank());
    const int64_t place = 1000 + comm_.rank();
    t.data<float>()[place] = std::numeric_limits<float>::quiet_NaN();
    comm_.all_reduce(t, ReduceOp::max);
    for (int64_t i = 0; i < t.numel(); ++i) {
      expect(std::isnan(t.data<float>()[i]) == (i >= 1000 && i < 1000 + size()), "a NaN is a NaN in the maximum, and nothing else is");
    }
  }

  void refused(const char* claim, const std::function<void()>& call) {
    try {
      call();
    } catch (const Error&) {
      return;
    }
    expect(false, claim);
  }

  /// Seen before anything is sent.
  void refusals() {
    const auto input = [&](const Shape& shape, DType dtype) { return placed(filled(shape, dtype, 0)); };
    const Tensor t = input({6, 2}, DType::f32);
    if (size() == 1) return;
    const std::vector<int64_t> wrong(static_cast<size_t>(size()), 7), few{6};
    refused("all_gather of another shape", [&] { comm_.all_gather(t, t); });
    refused("reduce_scatter of another dtype", [&] { comm_.reduce_scatter(input({6 * size(), 2}, DType::f64), t); });
    refused("all_gather of rows that do not add up", [&] { comm_.all_gather(t, input({12 * size(), 2}, DType::f32), wrong); });
    refused("reduce_scatter with too few counts", [&] { comm_.reduce_scatter(input({6 * size(), 2}, DType::f32), t, few); });
    refused("all_to_all whose rows do not add up", [&] { comm_.all_to_all(t, wrong, t, wrong); });
    refused("all_to_all with too few counts", [&] { comm_.all_to_all(t, few, t, few); });
    refused("broadcast from nobody", [&] { comm_.broadcast(t, size()); });
    refused("a tensor that is none", [&] { comm_.all_reduce(Tensor(), ReduceOp::sum); });
  }

  Communicator& comm_;
  std::vector<int> members_;
  std::string name_, what_;
  CachingAllocator* const device_;  // null: the host
  CachingAllocator memory_;
  int failed_ = 0;
};

}  // namespace

int check_communicator(Communicator& comm, std::vector<int> members, const std::string& name, CachingAllocator* device) {
  return Checks(comm, std::move(members), name, device).run();
}

std::vector<int> ranks_from(int first, int size, int stride) {
  std::vector<int> members;
  for (int r = first; r < size; r += stride) members.push_back(r);
  return members;
}

int report(Communicator& world, int failed) {
  CachingAllocator memory(make_host_source());
  const Tensor all = Tensor::from<int32_t>(memory, {1}, std::vector<int32_t>{failed});
  world.all_reduce(all, ReduceOp::sum);
  if (world.rank() == 0) std::printf("%d ranks: %d checks failed\n", world.size(), item<int32_t>(all));
  return item<int32_t>(all) == 0 ? 0 : 1;
}

}  // namespace ermoe::testing
