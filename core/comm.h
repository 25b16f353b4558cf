// Collectives between ranks. Everything above talks to this interface; one process uses `SelfCommunicator`, so
// nobody writes `if (world > 1)`. It takes tensors, so a dtype or a count cannot be wrong.
#pragma once

#include "core/tensor.h"

#include <functional>
#include <memory>
#include <optional>
#include <span>

namespace ermoe {

enum class ReduceOp { sum, max };

/// Rows [begin, begin + rows) of a tensor that travel to or from `rank`.
struct RowBlock {
  int rank = 0;
  int64_t begin = 0, rows = 0;
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  /// Index of this rank among those of its host, of the whole run: picks the GPU.
  virtual int local_rank() const = 0;

  /// In place: every rank ends with the reduction over all ranks.
  virtual void all_reduce(const Tensor& t, ReduceOp op) = 0;
  /// `out` (n, …) is this rank's slice of the sum of every rank's `in` (W*n, …). With `rows`, one number a rank, rank w has rows[w] of the
  /// rows, after those of the ranks before it; some may have none. `out` may be the very rows of `in`; what else is in `in` stays.
  virtual void reduce_scatter(const Tensor& in, const Tensor& out, std::span<const int64_t> rows = {}) = 0;
  /// `out` (W*n, …) is the concatenation of every rank's `in` (n, …), or of rows[w] rows of each. `in` may be the very rows of `out`.
  virtual void all_gather(const Tensor& in, const Tensor& out, std::span<const int64_t> rows = {}) = 0;
  virtual void broadcast(const Tensor& t, int root) = 0;
  /// Sends `send_rows[w]` rows to rank w, in order, and receives `recv_rows[w]` rows from it.
  virtual void all_to_all(const Tensor& send, std::span<const int64_t> send_rows, const Tensor& recv,
                          std::span<const int64_t> recv_rows) = 0;
  /// The same by blocks that may lie anywhere in both, several to a rank: those between two ranks pair up in their order. Rows of `recv`
  /// that are in no block stay as they are. What is given here does so by `all_to_all` of copies, on the host alone.
  virtual void exchange_blocks(const Tensor& send, std::span<const RowBlock> sends, const Tensor& recv, std::span<const RowBlock> receives);
  virtual void barrier() = 0;

  /// Runs the collectives that `work` calls, of this communicator or of parts of it, together, and beside whatever the device is given
  /// from now on: they begin when what it was given before is done. Until `wait` nobody may touch their tensors. On a CPU they are done
  /// when this returns.
  virtual void start(const std::function<void()>& work) { work(); }
  /// Waits until the device has done what it was given, as a collective called `name` that the watch sees: before the host reads what
  /// other ranks sent. Nothing on a CPU.
  virtual void settle([[maybe_unused]] const char* name) {}
  /// What the device is given from now on finds done whatever was started.
  virtual void wait() {}

  /// The communicator of the ranks that name the same colour, ordered by rank.
  virtual std::unique_ptr<Communicator> split(int colour) = 0;
};

/// One process alone: every collective is the identity or a copy.
class SelfCommunicator final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  int local_rank() const override { return 0; }
  void all_reduce(const Tensor&, ReduceOp) override {}
  void reduce_scatter(const Tensor& in, const Tensor& out, std::span<const int64_t>) override { copy_unless_same(in, out); }
  void all_gather(const Tensor& in, const Tensor& out, std::span<const int64_t>) override { copy_unless_same(in, out); }
  void broadcast(const Tensor&, int) override {}
  void all_to_all(const Tensor& send, std::span<const int64_t>, const Tensor& recv, std::span<const int64_t>) override { copy(send, recv); }
  void barrier() override {}
  std::unique_ptr<Communicator> split(int) override { return std::make_unique<SelfCommunicator>(); }

 private:
  static void copy_unless_same(const Tensor& from, const Tensor& to) {
    if (from.numel() > 0 && from.raw() != to.raw()) copy(from, to);
  }
};

/// What a launcher's variables (Open MPI's, PMI's, Slurm's) say about how often it started the program; nothing where there are none.
struct Launch {
  const char* variable = nullptr;
  int processes = 1;
};
std::optional<Launch> find_launch();

/// Throws `InputError` where a launcher started this process as one of several: a program that works alone, as every one does in a
/// build without MPI, would run as N unconnected copies. Programs of many ranks begin with `Ranks::join` (core/ranks.h) instead.
void refuse_silent_multi_launch();

}  // namespace ermoe
