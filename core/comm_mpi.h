// Collectives between processes over MPI, for tensors in host memory. Sums do not depend on MPI's algorithms: pieces travel as
// bytes and each rank adds up its piece in the order of ranks, so every rank gets the same bits in every run on as many ranks.
// Only built where MPI is found; who starts it: core/ranks.cpp.
#pragma once

#include "core/comm.h"
#include "core/rank_watch.h"

#include <cstddef>
#include <memory>
#include <vector>

namespace ermoe {

/// MPI from MPI_Init to MPI_Finalize.
class MpiProcess {
 public:
  /// Throws `Error` where MPI was started already or cannot be.
  MpiProcess();
  ~MpiProcess();
  MpiProcess(const MpiProcess&) = delete;
  MpiProcess& operator=(const MpiProcess&) = delete;

  /// MPI_Finalize waits for all ranks: not to be called once one of them has failed.
  void abandon() { abandoned_ = true; }

 private:
  bool abandoned_ = false;
};

/// How much moves at once. Smaller only in tests.
struct MpiPieces {
  int64_t message = int64_t{1} << 30;     // bytes; MPI counts in int
  int64_t reduction = int64_t{32} << 20;  // bytes of a tensor that are reduced in one go: scratch is as large
};

/// Tensors must lie on the host. A collective that all ranks do not call in the same order with the same sizes is an `Error` or,
/// where it waits for ever, a matter of the watch.
class MpiCommunicator final : public Communicator {
 public:
  /// All ranks of the run. `watch` is told of every collective; it must outlive this.
  static std::unique_ptr<MpiCommunicator> world(RankWatch& watch, MpiPieces pieces = {});
  ~MpiCommunicator() override;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  /// Of the whole run, in a part of it too.
  int local_rank() const override { return local_rank_; }

  void all_reduce(const Tensor& t, ReduceOp op) override;
  void reduce_scatter(const Tensor& in, const Tensor& out, std::span<const int64_t> rows) override;
  void all_gather(const Tensor& in, const Tensor& out, std::span<const int64_t> rows) override;
  void broadcast(const Tensor& t, int root) override;
  void all_to_all(const Tensor& send, std::span<const int64_t> send_rows, const Tensor& recv, std::span<const int64_t> recv_rows) override;
  void barrier() override;
  /// `colour` is at least 0.
  std::unique_ptr<Communicator> split(int colour) override;

 private:
  struct Handle;   // what MPI knows it by
  struct Watched;  // a collective from its start to its end, for the watch
  struct Piece {
    std::byte* data = nullptr;
    int64_t bytes = 0;
  };

  MpiCommunicator(std::unique_ptr<Handle> handle, uint64_t group, RankWatch& watch, MpiPieces pieces);

  void exchange();
  void start_round(int64_t round);
  void finish_round();
  std::byte* scratch(int64_t bytes);
  void gather_tiny(const Tensor& t);
  void all_reduce_piece(std::byte* data, int64_t count, DType dtype, ReduceOp op);
  void receive_parts(std::byte* own, int64_t bytes);

  std::unique_ptr<Handle> handle_;
  RankWatch& watch_;
  MpiPieces pieces_;
  uint64_t group_;
  uint64_t number_ = 0;  // of collectives so far
  int rank_ = 0, size_ = 1, local_rank_ = 0;
  std::vector<Piece> to_, from_;         // of `exchange`, by rank
  std::vector<const std::byte*> parts_;  // of a reduction, by rank
  std::vector<std::byte> scratch_;
};

}  // namespace ermoe
