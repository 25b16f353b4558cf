#include "core/comm.h"

#include "core/comm_checks.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <vector>

namespace ermoe {

std::optional<Launch> find_launch() {
  // mpirun inside a Slurm job sets both its own and, through srun, Slurm's. Of Slurm's the one of the step counts: SLURM_NTASKS is
  // the allocation's, even for a program that srun did not start.
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"}) {
    const char* text = std::getenv(name);
    if (text == nullptr) continue;
    const bool of_allocation = std::string_view(name) == "SLURM_NTASKS";
    if (of_allocation && std::getenv("SLURM_STEP_ID") == nullptr) continue;
    return Launch{name, std::atoi(text)};
  }
  return std::nullopt;
}

namespace {

/// Bytes of a row of `t`, and rows of the blocks for each rank.
int64_t row_bytes(const Tensor& t) { return t.shape()[0] > 0 ? static_cast<int64_t>(t.bytes()) / t.shape()[0] : 0; }

std::vector<int64_t> rows_by_rank(std::span<const RowBlock> blocks, int size) {
  std::vector<int64_t> rows(static_cast<size_t>(size));
  for (const RowBlock& b : blocks) rows[static_cast<size_t>(b.rank)] += b.rows;
  return rows;
}

/// fn(block, bytes before it) for the blocks of rank 0, then those of rank 1, …: as they lie side by side.
template <typename Fn>
void side_by_side(std::span<const RowBlock> blocks, int size, int64_t row, Fn&& fn) {
  int64_t at = 0;
  for (int rank = 0; rank < size; ++rank)
    for (const RowBlock& b : blocks) {
      if (b.rank != rank) continue;
      fn(b, at);
      at += b.rows * row;
    }
}

}  // namespace

void Communicator::exchange_blocks(const Tensor& send, std::span<const RowBlock> sends, const Tensor& recv,
                                   std::span<const RowBlock> receives) {
  check_blocks(send, sends, recv, receives, rank(), size());
  check(!send.device().is_cuda() && !recv.device().is_cuda(), "[exchange_blocks] tensors of a GPU");
  const std::vector<int64_t> to = rows_by_rank(sends, size()), from = rows_by_rank(receives, size());
  CachingAllocator memory(make_host_source());
  const auto packed = [&](const Tensor& like, const std::vector<int64_t>& rows) {
    return Tensor::empty(memory, like.shape().with(0, std::reduce(rows.begin(), rows.end())), like.dtype());
  };
  const Tensor out = packed(send, to), in = packed(recv, from);
  const int64_t row = std::max(row_bytes(send), row_bytes(recv));
  side_by_side(sends, size(), row, [&](const RowBlock& b, int64_t at) {
    std::memcpy(out.raw() + at, send.raw() + b.begin * row, static_cast<size_t>(b.rows * row));
  });
  all_to_all(out, to, in, from);
  side_by_side(receives, size(), row, [&](const RowBlock& b, int64_t at) {
    std::memcpy(recv.raw() + b.begin * row, in.raw() + at, static_cast<size_t>(b.rows * row));
  });
}

void refuse_silent_multi_launch() {
  const std::optional<Launch> launch = find_launch();
  if (!launch || launch->processes <= 1) return;
#if defined(ERMOE_WITH_MPI)
  constexpr const char* fault = "this program works alone; start it once";
#else
  constexpr const char* fault = "this build has no MPI; start it once, or build with MPI";
#endif
  fail_input("{}={} says that this is one of several processes, but {}", launch->variable, launch->processes, fault);
}

}  // namespace ermoe
