// Collectives between the GPUs of several ranks over NCCL. Read core/comm.h first; next: cuda/runtime/comm_stream.h, then
// cuda/runtime/nccl_comm.cpp, the one file that sees NCCL.
#pragma once

#include "core/comm.h"
#include "core/rank_watch.h"
#include "cuda/factory.h"

#include <functional>
#include <memory>
#include <source_location>

namespace ermoe::cuda {

class CommStream;

/// Whether the build has NCCL.
bool has_nccl();

/// Tensors of the GPU go over NCCL, through one stream beside the engine's; those of the host to the communicator of the host that it
/// was made from. The host only queues: what is seen by the watch is that, not what the GPU does later. NCCL checks no sizes: where ranks
/// disagree about one, GPUs wait for ever. Sums are made in an order that NCCL chooses; a NaN may be missing in a maximum.
/// Recordings (`Gpu::record`) that contain its collectives must be gone before it goes.
class NcclCommunicator final : public Communicator {
 public:
  /// All ranks of `host` make one at the same time, each for a GPU of its own. `host` and `watch` must outlive it, and so must what
  /// `stream` belongs to.
  NcclCommunicator(Communicator& host, RankWatch& watch, const GpuInfo& gpu, const Stream& stream);
  ~NcclCommunicator() override;

  int rank() const override { return host_.rank(); }
  int size() const override { return host_.size(); }
  int local_rank() const override { return host_.local_rank(); }

  void all_reduce(const Tensor& t, ReduceOp op) override;
  void reduce_scatter(const Tensor& in, const Tensor& out, std::span<const int64_t> rows) override;
  void all_gather(const Tensor& in, const Tensor& out, std::span<const int64_t> rows) override;
  void broadcast(const Tensor& t, int root) override;
  void all_to_all(const Tensor& send, std::span<const int64_t> send_rows, const Tensor& recv, std::span<const int64_t> recv_rows) override;
  void exchange_blocks(const Tensor& send, std::span<const RowBlock> sends, const Tensor& recv,
                       std::span<const RowBlock> receives) override;
  /// Of the ranks' hosts.
  void barrier() override { host_.barrier(); }
  void settle(const char* name) override;
  void start(const std::function<void()>& work) override;
  void wait() override;
  std::unique_ptr<Communicator> split(int colour) override;

 private:
  struct Handle;   // what NCCL knows it by
  struct Shared;   // what all communicators of a process have in common
  struct Watched;  // what the host does for a collective, for the watch
  struct Pieces;   // what a collective of uneven rows is made of

  NcclCommunicator(std::unique_ptr<Communicator> own, Communicator& host, RankWatch& watch, std::shared_ptr<Shared> shared);
  void connect();
  bool on_host(const char* name, const Tensor& a, const Tensor& b) const;
  void queue(const char* name, size_t bytes, const std::function<void()>& calls);
  void run_group(const std::function<void()>& work);
  void require(int status, const char* api, const std::source_location& where = std::source_location::current()) const;

  const std::unique_ptr<Communicator> own_;  // where nobody else has the host's
  Communicator& host_;
  RankWatch& watch_;
  std::shared_ptr<Shared> shared_;
  std::unique_ptr<Handle> handle_;
  uint64_t group_ = 0;
  uint64_t number_ = 0;  // of collectives so far
};

/// See `Gpu::join`. `memory`: of the GPU.
std::unique_ptr<Communicator> join_over_nccl(Communicator& host, RankWatch& watch, const GpuInfo& gpu, const Stream& stream,
                                             CachingAllocator& memory);

}  // namespace ermoe::cuda
